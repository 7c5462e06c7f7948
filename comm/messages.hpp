// Bounds of the wire messages (messages.proto), and the only way from bytes to messages. decode() trusts
// nothing: whatever the bytes, it returns an Envelope whose every field is within its bounds, or says what is
// wrong; it never throws for its input, and never holds more memory than a small multiple of what the kind of
// message may take. Pure functions; thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace troupe::wire {

class Envelope;

inline constexpr uint32_t kWireVersion = 3;
inline constexpr size_t kMessageBytesMax = size_t{4} << 20;    // encoded, any kind
inline constexpr size_t kControlBytesMax = size_t{1} << 20;    // encoded, kinds that carry no bulk field
inline constexpr size_t kBulkFieldBytesMax = size_t{3} << 20;  // of one bulk field, such as Piece.data
inline constexpr size_t kPieceBytes = size_t{256}
                                      << 10;  // of a blob: small, so that signs of life pass between
inline constexpr size_t kJobTextBytesMax = size_t{256} << 10;  // StartJob.job_toml
inline constexpr size_t kTextBytesMax = 4096;                  // reasons, errors
inline constexpr size_t kNameBytesMax = 255;                   // names, addresses, states
inline constexpr uint32_t kRanksMax = 4096;
inline constexpr int kOrdersMax = 64;  // by which one job is known
inline constexpr int kSlotWordsMax = 16;
inline constexpr size_t kIncarnationBytes = 16;
inline constexpr size_t kHashBytes = 32;

// What is out of bounds, naming the field; nothing when all is well.
std::optional<std::string> validate(const Envelope& envelope);

// REQUIRES: validate() finds nothing (a CheckFailure names what it found: an oversized message is a bug of
// its sender).
std::string encode(const Envelope& envelope);

// Overwrites `envelope`. Returns what is wrong, or nothing. On failure the envelope is empty.
std::optional<std::string> decode(std::string_view bytes, Envelope& envelope);

// The name of the body's kind as in messages.proto ("claim", "start_job"), or "nothing": for errors and logs.
std::string_view kind_name(const Envelope& envelope);

}  // namespace troupe::wire
