// The checksum behind every message on a link. gRPC adds none and TCP's is weak: without it a damaged message
// can pass for a valid one, and one whose HTTP/2 frame is dropped for a damaged stream number is missed by
// nobody. So it covers the message's place in its direction of the stream too. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace troupe::comm {

inline constexpr size_t kLinkChecksumBytes = 8;  // little-endian, XXH3

// `sequence` counts the messages of a direction from 0, signs of life (empty ones) included.
void append_checksum(std::string& message, uint64_t sequence);

// The message alone; nothing when these are not the bytes that were sent as number `sequence`.
std::optional<std::string_view> strip_checksum(std::string_view bytes, uint64_t sequence);

}  // namespace troupe::comm
