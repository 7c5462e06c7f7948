#include "kernels/base/thread_group.hpp"

#include <utility>

#include "kernels/base/error.hpp"

namespace troupe {

ThreadGroup::ThreadGroup(size_t count, std::function<void()> work) : work_(std::move(work)) {
  threads_.reserve(count);
  try {
    while (threads_.size() < count) threads_.emplace_back([this] { run(); });
  } catch (const std::exception& reason) {
    start(false);
    wait();
    throw error(ErrorKind::usage,
                "cannot start {} threads, only {} ({}); lower --threads, or raise the limit", count,
                threads_.size(), reason.what());
  }
  start(true);
}

ThreadGroup::~ThreadGroup() {
  wait();
}

void ThreadGroup::join() {
  wait();
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadGroup::run() {
  {
    std::unique_lock lock(mutex_);
    started_.wait(lock, [this] { return go_.has_value(); });
    if (!*go_) return;
  }
  try {
    work_();
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void ThreadGroup::start(bool go) {
  const std::lock_guard lock(mutex_);
  go_ = go;
  started_.notify_all();
}

void ThreadGroup::wait() {
  for (std::thread& thread : threads_)
    if (thread.joinable()) thread.join();
}

}  // namespace troupe
