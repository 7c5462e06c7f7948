// The pieces of the shared-memory transport that the handshake puts together. See shared_memory.hpp.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "comm/byte_channel.hpp"

namespace troupe::comm {

// Where the memory is and how to know it for the right one; travels in the handshake.
struct ShmOffer {
  uint32_t process = 0;
  int32_t descriptor = -1;
  uint64_t bytes = 0;
  std::array<uint8_t, 32> nonce{};
};

// A mapping of one memfd, with a ring of bytes each way.
class ShmRegion {
 public:
  // Empty with `why` when the system gives no such memory.
  static std::unique_ptr<ShmRegion> create(std::string& why);
  // Empty with `why` when the memory cannot be opened or is not what was offered.
  static std::unique_ptr<ShmRegion> open(const ShmOffer& offer, std::string& why);
  ShmRegion(ShmRegion&& other) noexcept;
  ShmRegion& operator=(ShmRegion&&) = delete;
  ~ShmRegion();

  ShmOffer offer() const;
  // The opener writes this into the memory, so that the maker sees that both have the same.
  void confirm();
  bool confirmed() const;

  struct Layout;
  Layout& layout() const { return *layout_; }

 private:
  ShmRegion() = default;
  int fd_ = -1;
  Layout* layout_ = nullptr;
};

// `life_line` is the channel of the handshake; nothing but its end is ever read from it. `maker` made the
// region.
std::unique_ptr<ByteChannel> make_shm_channel(ShmRegion region, bool maker,
                                              std::unique_ptr<ByteChannel> life_line);

}  // namespace troupe::comm
