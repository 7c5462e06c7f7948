// Buffers that are used again. Fresh memory is cleared page by page by the system, which costs more than a
// small batch takes to translate. One thread at a time.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/backend.hpp"

namespace troupe::model {

class BufferPool {
 public:
  explicit BufferPool(kernels::Backend& backend) : backend_(backend) {}

  // At least `bytes`, with whatever is in it. Throws Error(out_of_memory).
  kernels::Buffer take(size_t bytes) {
    const auto fits = [&](const kernels::Buffer& buffer) { return buffer.bytes() >= bytes; };
    const auto found = std::find_if(free_.begin(), free_.end(), fits);
    if (found == free_.end()) return backend_.allocate(bytes);
    kernels::Buffer buffer = std::move(*found);
    free_.erase(found);
    return buffer;
  }
  // The largest kMost are kept.
  void give(kernels::Buffer buffer) {
    if (buffer.data() == nullptr) return;
    const auto larger = [&](const kernels::Buffer& other) { return other.bytes() > buffer.bytes(); };
    free_.insert(std::find_if(free_.begin(), free_.end(), larger), std::move(buffer));
    if (free_.size() > kMost) free_.erase(free_.begin());
  }

 private:
  static constexpr size_t kMost = 4;

  kernels::Backend& backend_;
  std::vector<kernels::Buffer> free_;  // smallest first
};

}  // namespace troupe::model
