// The bytes of a frame: a head of 64 bytes with its own checksum, the words of the slot set, the payload.
// Little-endian. Where the channel has shared places, slots and payload may lie in one of them; then the
// number of the place, 8 bytes, follows the head. Pure functions.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace troupe::comm {

static_assert(std::endian::native == std::endian::little, "frames are written as they lie in memory");

inline constexpr uint32_t kFrameMagic = 0x4b4c4254;  // "TBLK"
inline constexpr uint8_t kFrameVersion = 1;

// Types from 128 on are the connection's own.
enum class ControlType : uint8_t { ack = 128, resend, ask_ack, alive, abort };
// Flags of a data frame.
inline constexpr uint8_t kWantsAck = 1;
inline constexpr uint8_t kInPlace = 2;

struct WireHead {
  uint32_t magic = kFrameMagic;
  uint8_t version = kFrameVersion;
  uint8_t type = 0;
  uint8_t slot_words = 0;
  uint8_t flags = 0;
  uint64_t sequence = 0;  // of a data frame: its number; of ack and resend: the next number wanted, and
                          // `bucket` says how many before it are still in use
  uint64_t ballot_number = 0;
  uint32_t ballot_leader = 0;
  uint32_t bucket = 0;
  int64_t step = 0;
  uint32_t chunk = 0;
  uint32_t payload_bytes = 0;
  uint64_t body_checksum = 0;  // of slots and payload
  uint64_t head_checksum = 0;  // of all above

  bool is_data() const { return type < 128; }
  bool is_in_place() const { return is_data() && (flags & kInPlace) != 0; }
  size_t body_bytes() const { return slot_words * sizeof(uint64_t) + payload_bytes; }
  // In the stream, from the head on.
  size_t stream_bytes() const { return sizeof(WireHead) + (is_in_place() ? sizeof(uint64_t) : body_bytes()); }
};
static_assert(sizeof(WireHead) == 64);

// Fills in both checksums; `body` is slots and payload.
void seal(WireHead& head, std::span<const std::byte> body);
// Magic, version and the head's checksum are right, and the lengths within bounds.
bool head_is_intact(const WireHead& head);
bool body_is_intact(const WireHead& head, std::span<const std::byte> body);
// Where the next intact head may begin: the first offset from 1 on at which the magic number stands, or is
// cut off by the end.
size_t next_head_candidate(std::span<const std::byte> bytes);

}  // namespace troupe::comm
