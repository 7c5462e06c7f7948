#include "comm/messages.hpp"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include "comm/messages.pb.h"
#include "comm/messages_check.hpp"
#include "kernels/base/error.hpp"

namespace troupe::wire {

namespace {

using google::protobuf::internal::WireFormatLite;
using Input = google::protobuf::io::CodedInputStream;

constexpr int kBulkFieldsMax = 64;  // in an Envelope, and in a body that may be large
constexpr int kNestingMax = 8;      // deeper than any message of ours

bool is_bulk(int field) {
  return field == Envelope::kPrepareStartFieldNumber || field == Envelope::kPrepareChunkFieldNumber ||
         field == Envelope::kPrepareShardFieldNumber || field == Envelope::kPieceFieldNumber;
}

// Walks the fields of one message without building anything; calls found(number, length) for those with a
// length. False when the bytes are no message, or have more than kBulkFieldsMax fields.
template <typename Found>
bool walk(std::string_view bytes, Found found) {
  Input input(reinterpret_cast<const uint8_t*>(bytes.data()), int(bytes.size()));
  int fields = 0;
  while (const uint32_t tag = input.ReadTag()) {
    if (++fields > kBulkFieldsMax) return false;
    if (WireFormatLite::GetTagWireType(tag) != WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
      if (!WireFormatLite::SkipField(&input, tag)) return false;
      continue;
    }
    uint32_t length = 0;
    if (!input.ReadVarint32(&length)) return false;
    const auto position = size_t(input.CurrentPosition());
    if (length > bytes.size() - position) return false;
    found(WireFormatLite::GetTagFieldNumber(tag), bytes.substr(position, length));
    input.Skip(int(length));
  }
  return input.ConsumedEntireMessage();
}

// Before anything is built from untrusted bytes: only kinds with a bulk field may be large, and those must be
// a few fields, so that what protobuf builds is never much larger than the bytes.
std::optional<std::string> check_size(std::string_view bytes) {
  if (bytes.size() > kMessageBytesMax)
    return fmt::format("a message of {} bytes is larger than {}", bytes.size(), kMessageBytesMax);
  if (bytes.size() <= kControlBytesMax) return std::nullopt;
  bool bulk = true;
  const bool whole = walk(bytes, [&](int field, std::string_view body) {
    if (is_bulk(field))
      bulk = bulk && walk(body, [](int, std::string_view) {});
    else
      bulk = bulk && body.size() <= kTextBytesMax;
  });
  if (!whole || !bulk)
    return fmt::format("a message of {} bytes, larger than the {} that its kind may have", bytes.size(),
                       kControlBytesMax);
  return std::nullopt;
}

}  // namespace

std::optional<std::string> validate(const Envelope& envelope) {
  if (auto wrong = check_fields(envelope)) return wrong;
  const size_t bytes = envelope.ByteSizeLong();
  const size_t bytes_max = is_bulk(envelope.body_case()) ? kMessageBytesMax : kControlBytesMax;
  if (bytes > bytes_max)
    return fmt::format("{} takes {} bytes, more than {}", kind_name(envelope), bytes, bytes_max);
  return std::nullopt;
}

std::string encode(const Envelope& envelope) {
  const auto wrong = validate(envelope);
  TROUPE_CHECK(!wrong, "message to be sent: {}", wrong.value_or(""));
  return envelope.SerializeAsString();
}

std::optional<std::string> decode(std::string_view bytes, Envelope& envelope) {
  envelope.Clear();
  if (auto wrong = check_size(bytes)) return wrong;
  Input input(reinterpret_cast<const uint8_t*>(bytes.data()), int(bytes.size()));
  input.SetRecursionLimit(kNestingMax);
  std::optional<std::string> wrong;
  if (!envelope.ParseFromCodedStream(&input) || !input.ConsumedEntireMessage())
    wrong = fmt::format("{} bytes that are no message of wire version {}", bytes.size(), kWireVersion);
  else
    wrong = validate(envelope);
  if (wrong) Envelope().Swap(&envelope);
  return wrong;
}

std::string_view kind_name(const Envelope& envelope) {
  if (envelope.body_case() == Envelope::BODY_NOT_SET) return "nothing";
  return Envelope::descriptor()->FindFieldByNumber(envelope.body_case())->name();
}

}  // namespace troupe::wire
