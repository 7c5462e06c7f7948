#include "kernels/cpu/scratch.hpp"

#include <algorithm>
#include <new>

namespace troupe::kernels {

namespace {
constexpr std::align_val_t kAlignment{64};
constexpr size_t kChunkBytesMin = size_t{1} << 20;
}  // namespace

Buffer allocate_host(size_t bytes) {
  void* data = ::operator new(std::max<size_t>(bytes, 64), kAlignment, std::nothrow);
  if (data == nullptr)
    throw error(ErrorKind::out_of_memory,
                "cannot allocate {} bytes of host memory; use a smaller batch or model", bytes);
  return Buffer(data, bytes, Device{}, [](void* p, size_t, Device) { ::operator delete(p, kAlignment); });
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
  if (chunk_ == chunks_.size()) chunks_.push_back(allocate_host(std::max(bytes, kChunkBytesMin)));
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
    chunks_.push_back(allocate_host(total));
  } catch (const Error&) {
    chunks_.clear();  // the next take asks again, and reports
  }
}

}  // namespace troupe::kernels
