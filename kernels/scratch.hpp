// Temporary memory of one stream: frames nest, and a frame gives back what it took when it ends. Grows to the
// most that was ever in use at once, in the first step, and allocates nothing after that. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/tensor.hpp"

namespace troupe::kernels {

// 64-byte aligned memory of the host. Throws Error(out_of_memory) with the bytes asked for.
Buffer allocate_host(size_t bytes);

class Scratch {
 public:
  // `allocate` makes the memory: of the host, or of a device, whose stream then uses it in the order of the
  // frames.
  explicit Scratch(std::function<Buffer(size_t bytes)> allocate = allocate_host)
      : allocate_(std::move(allocate)) {}

  class Frame {
   public:
    explicit Frame(Scratch& scratch) : scratch_(scratch), chunk_(scratch.chunk_), used_(scratch.used_) {}
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
    ~Frame() { scratch_.give_back(chunk_, used_); }

    // Uninitialised, 64-byte aligned, valid until the frame ends.
    template <typename T>
    T* take(int64_t count) {
      return static_cast<T*>(scratch_.take(size_t(count) * sizeof(T)));
    }

   private:
    Scratch& scratch_;
    size_t chunk_, used_;
  };

  size_t bytes() const;  // held at present

 private:
  void* take(size_t bytes);
  void give_back(size_t chunk, size_t used) noexcept;

  std::function<Buffer(size_t)> allocate_;
  std::vector<Buffer> chunks_;  // one, but in the first step
  size_t chunk_ = 0;            // the chunk in use
  size_t used_ = 0;             // bytes taken of it
};

}  // namespace troupe::kernels
