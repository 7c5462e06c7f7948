#include "kernels/cuda/staging.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/check.hpp"

namespace troupe::kernels {

namespace {

constexpr size_t kPieceBytesMin = size_t{64} << 10;

void release(void* memory, cudaEvent_t done) {
  if (done != nullptr) {
    report_cuda(cudaEventSynchronize(done), "waiting for a copy");
    report_cuda(cudaEventDestroy(done), "giving back an event");
  }
  if (memory != nullptr) report_cuda(cudaFreeHost(memory), "giving back pinned memory");
}

}  // namespace

Staging::~Staging() {
  for (const Piece& piece : pieces_) release(piece.memory, piece.done);
  release(aside_.memory, aside_.done);
}

void Staging::reserve(Piece& piece, size_t bytes) {
  if (piece.done == nullptr)
    check_cuda(cudaEventCreateWithFlags(&piece.done, cudaEventDisableTiming), "cannot create an event");
  check_cuda(cudaEventSynchronize(piece.done), "a copy between host and GPU failed");
  if (piece.bytes >= bytes) return;
  const size_t wanted = std::max(bytes, kPieceBytesMin);
  if (piece.memory != nullptr) check_cuda(cudaFreeHost(piece.memory), "cannot give back pinned memory");
  piece.memory = nullptr;
  piece.bytes = 0;
  check_cuda(cudaHostAlloc(&piece.memory, wanted, cudaHostAllocDefault),
             "cannot allocate {} bytes of pinned memory", wanted);
  piece.bytes = wanted;
}

// Pinned memory is taken for all pieces at the first copy, and later for larger ones alone: that waits for the
// whole device.
Staging::Piece& Staging::next(size_t bytes) {
  if (pieces_.back().done == nullptr)
    for (Piece& piece : pieces_) reserve(piece, kPieceBytesMin);
  Piece& piece = pieces_[turn_];
  turn_ = (turn_ + 1) % kPieces;
  reserve(piece, bytes);
  return piece;
}

void Staging::queue_out(Piece& piece, const void* from, size_t bytes) {
  check_cuda(cudaMemcpyAsync(piece.memory, from, bytes, cudaMemcpyDeviceToHost, stream_),
             "cannot copy {} bytes from the GPU", bytes);
  check_cuda(cudaEventRecord(piece.done, stream_), "cannot record an event");
}

void Staging::copy_in(void* to, const void* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kPieceBytes) {
    const size_t count = std::min(kPieceBytes, bytes - at);
    Piece& piece = next(count);
    std::memcpy(piece.memory, static_cast<const char*>(from) + at, count);
    check_cuda(
        cudaMemcpyAsync(static_cast<char*>(to) + at, piece.memory, count, cudaMemcpyHostToDevice, stream_),
        "cannot copy {} bytes to the GPU", count);
    check_cuda(cudaEventRecord(piece.done, stream_), "cannot record an event");
  }
}

// Two pieces on their way at a time: while one arrives, the one before it is copied on.
void Staging::copy_out(void* to, const void* from, size_t bytes) {
  Piece* before = nullptr;
  size_t before_at = 0, before_count = 0;
  const auto deliver = [&] {
    if (before == nullptr) return;
    check_cuda(cudaEventSynchronize(before->done), "cannot copy {} bytes from the GPU", before_count);
    std::memcpy(static_cast<char*>(to) + before_at, before->memory, before_count);
  };
  for (size_t at = 0; at < bytes; at += kPieceBytes) {
    const size_t count = std::min(kPieceBytes, bytes - at);
    Piece& piece = next(count);
    queue_out(piece, static_cast<const char*>(from) + at, count);
    deliver();
    before = &piece;
    before_at = at;
    before_count = count;
  }
  deliver();
}

void Staging::start_copy_out(const void* from, size_t bytes) {
  TROUPE_CHECK(bytes <= kAsideBytes, "{} bytes at once", bytes);
  reserve(aside_, bytes);
  queue_out(aside_, from, bytes);
  aside_bytes_ = bytes;
}

void Staging::finish_copy_out(void* to) {
  const size_t bytes = aside_bytes_;
  aside_bytes_ = 0;
  check_cuda(cudaEventSynchronize(aside_.done), "cannot copy {} bytes from the GPU", bytes);
  std::memcpy(to, aside_.memory, bytes);
}

}  // namespace troupe::kernels
