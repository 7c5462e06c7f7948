// A few threads that work on chunks as one thread reads them; at most `2 * threads` chunks wait. The first
// exception stops all and is thrown to the caller.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <utility>

#include "kernels/base/thread_group.hpp"

namespace troupe::data {

// produce() -> optional<Chunk> is called on this thread until it gives nullopt; each of the threads makes
// itself a worker(Chunk&&) -> Result by make_worker(); consume(Result&&) is called by one thread at a time,
// in no particular order.
template <typename Produce, typename MakeWorker, typename Consume>
void for_each_chunk(int threads, const Produce& produce, const MakeWorker& make_worker,
                    const Consume& consume) {
  using Chunk = typename decltype(produce())::value_type;
  std::mutex mutex, consuming;
  std::condition_variable changed;
  std::deque<Chunk> waiting;
  bool closed = false;
  std::exception_ptr failure;
  const auto fail = [&] {
    const std::lock_guard lock(mutex);
    if (!failure) failure = std::current_exception();
    closed = true;
    changed.notify_all();
  };
  const auto run = [&] {
    try {
      auto work = make_worker();
      while (true) {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return closed || !waiting.empty(); });
        if (failure || waiting.empty()) return;
        Chunk chunk = std::move(waiting.front());
        waiting.pop_front();
        changed.notify_all();
        lock.unlock();
        auto result = work(std::move(chunk));
        const std::lock_guard one_at_a_time(consuming);
        consume(std::move(result));
      }
    } catch (...) {
      fail();
    }
  };
  ThreadGroup pool(size_t(threads), run);
  try {
    while (std::optional<Chunk> chunk = produce()) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return failure || waiting.size() < 2 * size_t(threads); });
      if (failure) break;
      waiting.push_back(std::move(*chunk));
      changed.notify_all();
    }
    const std::lock_guard lock(mutex);
    closed = true;
    changed.notify_all();
  } catch (...) {
    fail();
  }
  pool.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace troupe::data
