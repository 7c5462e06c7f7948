#include "comm/link_checksum.hpp"

#include <bit>
#include <cstring>

#include "kernels/base/hash.hpp"
#include "kernels/base/random.hpp"

namespace troupe::comm {

static_assert(std::endian::native == std::endian::little, "checksums are written as they lie in memory");

namespace {
uint64_t checksum_of(std::string_view message, uint64_t sequence) {
  return mix64(checksum64(message.data(), message.size()), sequence);
}
}  // namespace

void append_checksum(std::string& message, uint64_t sequence) {
  const uint64_t checksum = checksum_of(message, sequence);
  message.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
}

std::optional<std::string_view> strip_checksum(std::string_view bytes, uint64_t sequence) {
  uint64_t said = 0;
  if (bytes.size() < sizeof said) return std::nullopt;
  const std::string_view message = bytes.substr(0, bytes.size() - sizeof said);
  std::memcpy(&said, message.data() + message.size(), sizeof said);
  if (said != checksum_of(message, sequence)) return std::nullopt;
  return message;
}

}  // namespace troupe::comm
