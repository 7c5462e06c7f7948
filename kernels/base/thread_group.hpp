// Threads that do the same work at once. All are there before one of them begins, so that a machine that
// refuses some of them loses no work half done. Belongs to the thread that makes it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace troupe {

class ThreadGroup {
 public:
  // Throws Error(usage) when the system refuses a thread; none has called `work` then.
  ThreadGroup(size_t count, std::function<void()> work);
  ~ThreadGroup();  // waits for all
  ThreadGroup(const ThreadGroup&) = delete;
  ThreadGroup& operator=(const ThreadGroup&) = delete;

  // Waits for all; throws the first exception that `work` threw in one of them. Once.
  void join();

 private:
  void run();
  void start(bool go);
  void wait();

  std::function<void()> work_;
  std::mutex mutex_;
  std::condition_variable started_;
  std::optional<bool> go_;  // nothing: not all are there yet
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

}  // namespace troupe
