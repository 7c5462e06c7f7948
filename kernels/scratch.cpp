#include "kernels/scratch.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace troupe::kernels {

namespace {
constexpr std::align_val_t kAlignment{64};
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kChunkBytesMin = size_t{1} << 20;
}  // namespace

// Large buffers start at huge pages and ask for them: products and streaming loops miss the TLB less.
Buffer allocate_host(size_t bytes) {
  const std::align_val_t alignment = bytes >= kHugePage ? std::align_val_t{kHugePage} : kAlignment;
  void* data = ::operator new(std::max<size_t>(bytes, 64), alignment, std::nothrow);
  if (data == nullptr)
    throw error(ErrorKind::out_of_memory,
                "cannot allocate {} bytes of host memory; use a smaller batch or model", bytes);
  if (bytes >= kHugePage) ::madvise(data, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);  // a wish: may fail
  return Buffer(data, bytes, Device{}, [](void* p, size_t size, Device) {
    ::operator delete(p, size >= kHugePage ? std::align_val_t{kHugePage} : kAlignment);
  });
}

size_t Scratch::bytes() const {
  size_t total = 0;
  for (const Buffer& chunk : chunks_) total += chunk.bytes();
  return total;
}

void* Scratch::take(size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  while (chunk_ < chunks_.size() && used_ + bytes > chunks_[chunk_].bytes()) {
    ++chunk_;
    used_ = 0;
  }
  if (chunk_ == chunks_.size()) chunks_.push_back(allocate_(std::max(bytes, kChunkBytesMin)));
  void* data = static_cast<char*>(chunks_[chunk_].data()) + used_;
  used_ += bytes;
  return data;
}

void Scratch::give_back(size_t chunk, size_t used) noexcept {
  chunk_ = chunk;
  used_ = used;
  if (chunk_ != 0 || used_ != 0 || chunks_.size() <= 1) return;
  const size_t total = bytes();  // nothing is in use: make one chunk of the many
  chunks_.clear();
  try {
    chunks_.push_back(allocate_(total));
  } catch (const Error&) {
    chunks_.clear();  // the next take asks again, and reports
  }
}

}  // namespace troupe::kernels
