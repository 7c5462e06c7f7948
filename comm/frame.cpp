#include "comm/frame.hpp"

#include <algorithm>
#include <cstring>

#include "comm/bulk.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::comm {
namespace {
constexpr size_t kCheckedBytes = offsetof(WireHead, head_checksum);
}

void seal(WireHead& head, std::span<const std::byte> body) {
  head.body_checksum = checksum64(body.data(), body.size());
  head.head_checksum = checksum64(&head, kCheckedBytes);
}

bool head_is_intact(const WireHead& head) {
  return head.magic == kFrameMagic && head.head_checksum == checksum64(&head, kCheckedBytes) &&
         head.version == kFrameVersion && head.slot_words <= kSlotWordsMax &&
         head.payload_bytes <= kFrameBytesMax;
}

bool body_is_intact(const WireHead& head, std::span<const std::byte> body) {
  return head.body_checksum == checksum64(body.data(), body.size());
}

size_t next_head_candidate(std::span<const std::byte> bytes) {
  std::byte magic[sizeof kFrameMagic];
  std::memcpy(magic, &kFrameMagic, sizeof magic);
  for (size_t at = 1; at < bytes.size(); ++at) {
    const size_t visible = std::min(sizeof magic, bytes.size() - at);
    if (std::memcmp(bytes.data() + at, magic, visible) == 0) return at;
  }
  return bytes.size();
}

}  // namespace troupe::comm
