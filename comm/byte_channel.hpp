// What a bulk connection runs over: a two-way stream of bytes that never blocks in read() and write(). TCP,
// TLS and shared memory implement it. One thread at a time, but for wait(), which any number may be in, and
// interrupt().
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "comm/bulk.hpp"

namespace troupe::comm {

class Descriptor;

struct Moved {
  size_t bytes = 0;
  bool closed = false;  // nothing will ever move again; `why` in words
  std::string why;
};

// Memory beside the stream that both ends see: `count` places for each end, of kPlaceBytes (whole pages).
inline constexpr size_t kPlaceBytes = (FrameBuffer::kHeadRoom + kFrameBytesMax + 4095) / 4096 * 4096;
struct SharedPlaces {
  std::byte* own = nullptr;          // this end writes
  const std::byte* peers = nullptr;  // the peer writes, whenever it likes
  size_t count = 0;
};

class ByteChannel {
 public:
  virtual ~ByteChannel() = default;
  // Moves what can be moved now; no bytes and not closed: would have to wait. What arrived before the end is
  // given out before `closed`.
  virtual Moved read(std::span<std::byte> into) = 0;
  virtual Moved write(std::span<const std::byte> from) = 0;
  // Until reading or writing may be possible (of those asked for), the peer is gone, the deadline, or
  // interrupt().
  virtual void wait(bool readable, bool writable, Deadline deadline) = 0;
  virtual void interrupt() noexcept = 0;  // from any thread; all waits end at once from now on
  virtual bool encrypted() const { return false; }
  virtual SharedPlaces shared_places() const { return {}; }
  // Whether the peer proved that this is its name; always true where nothing is proved.
  virtual bool peer_carries(const std::string& /* name */) const { return true; }
};

std::unique_ptr<ByteChannel> make_tcp_channel(Descriptor socket);

}  // namespace troupe::comm
