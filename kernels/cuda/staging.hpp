// Host memory that a GPU copies from and to without stopping its stream: a few pinned pieces, used in turn. A
// caller's bytes are moved through them, so they may be ordinary memory and are free again when a call
// returns. Bounded: kPieces pieces of at most kPieceBytes. One thread, one stream.
#pragma once

#include <array>

#include <cuda_runtime_api.h>

namespace troupe::kernels {

class Staging {
 public:
  static constexpr size_t kPieces = 8;
  static constexpr size_t kPieceBytes = size_t{4} << 20;
  static constexpr size_t kAsideBytes = size_t{64} << 20;

  explicit Staging(cudaStream_t stream) : stream_(stream) {}
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  void copy_in(void* to, const void* from, size_t bytes);
  void copy_out(void* to, const void* from, size_t bytes);  // waits
  // REQUIRES bytes <= kAsideBytes. One such copy at a time: its memory is put aside until it is finished, or the
  // next one begins.
  void start_copy_out(const void* from, size_t bytes);
  void finish_copy_out(void* to);

 private:
  struct Piece {
    void* memory = nullptr;
    size_t bytes = 0;
    cudaEvent_t done = nullptr;  // of its last copy
  };
  // The next piece, idle, with room for `bytes`.
  Piece& next(size_t bytes);
  void reserve(Piece& piece, size_t bytes);
  void queue_out(Piece& piece, const void* from, size_t bytes);

  cudaStream_t stream_;
  std::array<Piece, kPieces> pieces_;
  size_t turn_ = 0;
  Piece aside_;
  size_t aside_bytes_ = 0;
};

}  // namespace troupe::kernels
