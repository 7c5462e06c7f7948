#include "kernels/base/thread_group.hpp"

#include <atomic>
#include <fstream>
#include <set>

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kernels/base/error.hpp"

using namespace troupe;

TEST_CASE("the threads of a group are all at work at once, and the first exception comes out") {
  std::mutex mutex;
  std::condition_variable all_here;
  std::set<std::thread::id> threads;
  ThreadGroup group(5, [&] {
    std::unique_lock lock(mutex);
    threads.insert(std::this_thread::get_id());
    all_here.notify_all();
    if (all_here.wait_for(lock, std::chrono::seconds(60), [&] { return threads.size() == 5; }))
      throw error(ErrorKind::numeric, "together");
  });
  CHECK_THROWS_WITH_AS(group.join(), "together", Error);
  CHECK(threads.size() == 5);
  CHECK_FALSE(threads.contains(std::this_thread::get_id()));
  CHECK_NOTHROW(ThreadGroup(0, [] { throw error(ErrorKind::numeric, "never"); }).join());
}

// Sanitizers reserve more address space than a limit could leave.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("where the system refuses a thread, none of the group begins") {
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_AS, &limit) == 0);
  const rlimit small{pages * size_t(::sysconf(_SC_PAGESIZE)) + (64 << 20), limit.rlim_max};
  std::atomic<int> begun{0};
  REQUIRE(::setrlimit(RLIMIT_AS, &small) == 0);
  CHECK_THROWS_WITH_AS(ThreadGroup(1000, [&] { ++begun; }),
                       doctest::Contains("cannot start 1000 threads, only"), Error);
  REQUIRE(::setrlimit(RLIMIT_AS, &limit) == 0);
  CHECK(begun == 0);
}
#endif
