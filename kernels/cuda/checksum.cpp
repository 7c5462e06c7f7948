#include "kernels/cuda/checksum.hpp"

namespace troupe::kernels {

std::vector<uint64_t> checksums(CudaStream& stream, std::span<const device::MemoryPiece> pieces) {
  std::vector<uint64_t> sums(pieces.size());
  if (pieces.empty()) return sums;
  Scratch::Frame frame(stream.scratch());
  auto* placed = frame.take<device::MemoryPiece>(int64_t(pieces.size()));
  stream.runtime().copy_in(placed, pieces.data(), pieces.size_bytes());
  device::ChecksumPieces kernel;
  kernel.pieces = placed;
  kernel.sums = frame.take<uint64_t>(int64_t(pieces.size()));
  stream.runtime().launch(call_of(kernel, int64_t(pieces.size()), "checksums"));
  stream.runtime().copy_out(sums.data(), kernel.sums, sums.size() * sizeof(uint64_t));
  return sums;
}

uint64_t checksum_on_host(const device::MemoryPiece& piece) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < piece.count; ++i) sum += device::mixed(piece.words[i], i);
  return sum;
}

}  // namespace troupe::kernels
