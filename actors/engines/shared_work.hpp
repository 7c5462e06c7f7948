// Work that the workers of a node share: items taken from one counter by whoever is free, largest first where
// sizes differ. Which worker did which item never shows in the result.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

#include "kernels/backend.hpp"

namespace troupe::actors {

class SharedWork {
 public:
  using Body = std::function<void(kernels::Stream& stream, int64_t item)>;
  SharedWork(int64_t items, Body body) : items_(items), body_(std::move(body)) {}

  // Called by every worker, each with its own stream; returns when no item is left to take.
  void run(kernels::Stream& stream) {
    for (int64_t item = next_.fetch_add(1); item < items_; item = next_.fetch_add(1)) body_(stream, item);
  }

 private:
  std::atomic<int64_t> next_{0};
  int64_t items_;
  Body body_;
};

}  // namespace troupe::actors
