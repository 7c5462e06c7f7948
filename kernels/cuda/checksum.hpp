// Checksums of a device's memory where it lies, in integers: the same for the same bytes on any device.
#pragma once

#include <span>
#include <vector>

#include "kernels/cuda/device/checksum.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

// One a piece, of what the stream has written so far. Waits. Pieces of a few thousand to a hundred thousand
// words use a device well.
std::vector<uint64_t> checksums(CudaStream& stream, std::span<const device::MemoryPiece> pieces);

// The same of a piece of the host's memory.
uint64_t checksum_on_host(const device::MemoryPiece& piece);

}  // namespace troupe::kernels
