#include "tests/comm/hostile_inputs.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "tests/comm/flip_proxy.hpp"
#include "tests/comm/link_support.hpp"
#include "tests/comm/raw_stream.hpp"
#include "tests/comm/ring_harness.hpp"

namespace troupe::comm::test {

namespace {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr size_t kFrameHeadBytes = 9;
constexpr uint8_t kData = 0, kHeaders = 1;

// Offsets in the hello of a bulk connection.
constexpr size_t kBallotAt = 8, kFromAt = 20, kReservedAt = 28, kHostIdBytesAt = 30, kJobAt = 32,
                 kBulkHelloBytes = 256;

std::string big_endian(uint64_t value, int bytes) {
  std::string text;
  for (int i = bytes - 1; i >= 0; --i) text += char(value >> (8 * i));
  return text;
}

std::string frame(uint8_t type, uint8_t flags, uint32_t stream, const std::string& payload) {
  return big_endian(payload.size(), 3) + char(type) + char(flags) + big_endian(stream, 4) + payload;
}

// A message of gRPC in a DATA frame of the first stream.
std::string data_frame(const std::string& message) {
  return frame(kData, 0, 1, std::string(1, '\0') + big_endian(message.size(), 4) + message);
}

size_t pick(Dice& dice, size_t below) {
  return size_t(dice() % std::max<size_t>(below, 1));
}

// The bytes that a dialler sends through a proxy to whom `talk` connects it.
template <typename Talk>
std::string record(const std::string& target, Talk talk) {
  std::mutex mutex;
  std::string bytes;
  {
    troupe::test::FlipProxy proxy(target, [&](uint64_t, std::span<std::byte> passing) {
      const std::lock_guard lock(mutex);
      bytes.append(reinterpret_cast<const char*>(passing.data()), passing.size());
    });
    talk(proxy.address());
  }
  return bytes;
}

}  // namespace

std::string noise(Dice& dice, size_t bytes_max) {
  std::string bytes(1 + pick(dice, bytes_max), '\0');
  for (char& byte : bytes) byte = char(dice());
  return bytes;
}

std::string clipped(Dice& dice, std::string bytes) {
  bytes.resize(pick(dice, bytes.size()));
  return bytes;
}

std::string flipped(Dice& dice, std::string bytes) {
  for (size_t flips = 1 + pick(dice, 8); flips > 0; --flips)
    bytes[pick(dice, bytes.size())] ^= char(1 << pick(dice, 8));
  return bytes;
}

LinkInputs::LinkInputs() {
  Node listener("listener");
  recording_ = record(listener.hub.listen_address(), [&](const std::string& address) {
    Node stranger(kName);
    stranger.hub.dial("listener", address);
    REQUIRE(stranger.recorder.wait(up("listener")));
    for (uint64_t i = 0; i < 5; ++i) REQUIRE(stranger.hub.send("listener", claim(i)) == Sent::ok);
    REQUIRE(listener.recorder.wait(message(kName), 5));
  });
  REQUIRE(recording_.starts_with(kPreface));
  for (size_t at = kPreface.size(); at + kFrameHeadBytes <= recording_.size();) {
    const auto byte = [&](size_t i) { return size_t(uint8_t(recording_[at + i])); };
    const size_t bytes = kFrameHeadBytes + (byte(0) << 16 | byte(1) << 8 | byte(2));
    frames_.push_back(recording_.substr(at, bytes));
    at += bytes;
  }
  const auto is_data = [](const std::string& each) { return uint8_t(each[3]) == kData; };
  REQUIRE(std::count_if(frames_.begin(), frames_.end(), is_data) >= 6);
}

std::string LinkInputs::make(uint64_t index, bool others) const {
  Dice dice(index);
  const std::string preface(kPreface);
  switch (index % 10) {
    case 0:
      return noise(dice, 400);
    case 1:
      return preface + noise(dice, 400);
    case 2:
      return flipped(dice, recording_);
    case 3:
      return clipped(dice, recording_);
    case 4:
      return with_one_altered(dice);
    case 5:
      return preface + shuffled(dice);
    case 6:
      return preface + frames_at_random(dice);
    case 7:
    case 8:
      return greeting(dice, others);
    default:
      return recording_;  // an old conversation, word for word
  }
}

// Shapes of frames are right; what they say is not.
std::string LinkInputs::frames_at_random(Dice& dice) const {
  std::string bytes = frames_.front();  // the settings
  const bool storm = dice() % 8 == 0;   // many of one kind: resets, pings, settings, continuations
  const uint8_t kind = uint8_t(dice() % 12);
  for (size_t count = 1 + pick(dice, storm ? 400 : 30); count > 0; --count)
    bytes += frame(storm ? kind : uint8_t(dice() % 12), uint8_t(dice() % 4 == 0 ? dice() : 4),
                   uint32_t(dice() % 4 == 0 ? dice() : dice() % 9), noise(dice, dice() % 2 == 0 ? 8 : 60));
  return bytes;
}

// A length or the head of one frame is another: in HTTP/2, or in gRPC.
std::string LinkInputs::with_one_altered(Dice& dice) const {
  std::vector<std::string> frames = frames_;
  std::string& victim = frames[pick(dice, frames.size())];
  const std::string lengths[] = {big_endian(0xffffff, 3), big_endian(0, 3), big_endian(dice(), 3),
                                 big_endian(victim.size() - kFrameHeadBytes + 1, 3)};
  if (uint8_t(victim[3]) == kData && victim.size() >= kFrameHeadBytes + 5 && dice() % 2 == 0)
    victim.replace(kFrameHeadBytes + 1, 4, big_endian(dice() % 2 == 0 ? 0xffffffff : dice() % (8 << 20), 4));
  else if (dice() % 2 == 0)
    victim.replace(0, 3, lengths[pick(dice, 4)]);
  else
    victim[3 + pick(dice, 6)] = char(dice());
  std::string bytes(kPreface);
  for (const std::string& each : frames) bytes += each;
  return bytes;
}

std::string LinkInputs::shuffled(Dice& dice) const {
  std::string bytes;
  for (size_t count = 1 + pick(dice, 2 * frames_.size()); count > 0; --count)
    bytes += dice() % 8 == 0 ? flipped(dice, frames_[pick(dice, frames_.size())])
                             : frames_[pick(dice, frames_.size())];
  return bytes;
}

std::string LinkInputs::greeting_without_hello() const {
  std::string bytes(kPreface);
  for (const std::string& each : frames_) {
    if (uint8_t(each[3]) == kData) break;
    bytes += each;
  }
  return bytes;
}

// A stream that is well formed, on which somebody says hello who should not, or goes on as nobody does.
std::string LinkInputs::greeting(Dice& dice, bool others) const {
  wire::Envelope first = raw_hello(kName);
  wire::Hello& hello = *first.mutable_hello();
  std::vector<std::string> messages;
  switch (dice() % 10) {
    case 0:
      hello.set_cluster("another");
      break;
    case 1:
      hello.set_wire_version(uint32_t(dice()));
      break;
    case 2:
      hello.set_node(noise(dice, 80));
      break;
    case 3:
      hello.set_incarnation(noise(dice, 40));
      break;
    case 4:
      hello.set_node(others ? troupe::test::member_name(uint32_t(dice() % 2)) : "another");
      break;
    case 5:
      first = claim(dice());
      break;
    case 6:
      messages = {first.SerializeAsString(), first.SerializeAsString()};
      break;
    case 7:
      messages = {first.SerializeAsString(), noise(dice, 2000)};
      break;
    case 8:
      messages = {first.SerializeAsString(), flipped(dice, claim(dice()).SerializeAsString())};
      break;
    default:
      messages = {flipped(dice, first.SerializeAsString())};
      break;
  }
  if (messages.empty()) messages = {first.SerializeAsString()};
  if (dice() % 8 != 0) messages = with_checksums(messages);
  std::string bytes = greeting_without_hello();
  for (const std::string& each : messages) bytes += data_frame(each);
  return bytes;
}

BulkInputs::BulkInputs() {
  const BulkPeer dialler{0, troupe::test::member_name(0), "", ""};
  BulkListener listener{BulkListenerOptions{}};
  recording_ = record(listener.address(), [&](const std::string& address) {
    const BulkPeer acceptor{1, troupe::test::member_name(1), address, ""};
    std::thread accepting([&] {
      BulkConnection connection =
          listener.accept(troupe::test::test_session(1), {&dialler, 1}, troupe::test::soon());
      connection.receive(troupe::test::soon());
      connection.acknowledge(troupe::test::soon());
    });
    {
      auto connection = bulk_connect(troupe::test::test_session(0), acceptor, {}, troupe::test::soon());
      connection.send({1, 0, 0, 0, {}}, std::vector<std::byte>(500), troupe::test::soon());
      connection.flush(troupe::test::soon());
    }
    accepting.join();
  });
  // The offsets above are still right.
  REQUIRE(recording_.size() > kBulkHelloBytes);
  REQUIRE(recording_[kBallotAt] == char(troupe::test::test_session(0).ballot.number));
  REQUIRE(std::all_of(recording_.begin() + kJobAt, recording_.begin() + kJobAt + 32,
                      [](char byte) { return byte == 7; }));
}

std::string BulkInputs::hello(uint64_t ballot) const {
  std::string bytes = recording_.substr(0, kBulkHelloBytes);
  std::memcpy(bytes.data() + kBallotAt, &ballot, sizeof ballot);
  return bytes;
}

std::string BulkInputs::make(uint64_t index, uint64_t ballot) const {
  Dice dice(index);
  std::string bytes = recording_;
  const uint64_t near = ballot + 1 - std::min<uint64_t>(ballot, dice() % 4);  // now, later, and stale ones
  const auto put = [&](size_t at, size_t count) {
    for (size_t i = 0; i < count; ++i) bytes[at + i] = char(dice());
  };
  if (index % 2 == 0) std::memcpy(bytes.data() + kBallotAt, &near, sizeof near);
  switch (index / 2 % 9) {
    case 0:
      return noise(dice, 600);
    case 1:
      return flipped(dice, bytes);
    case 2:
      return clipped(dice, bytes);
    case 3:
      put(kHostIdBytesAt, 2);  // lengths beyond the message
      return bytes;
    case 4:
      put(kFromAt, 8);  // ranks, of which nobody has heard
      return bytes;
    case 5:
      put(kReservedAt, 2);  // and the transport
      return bytes;
    case 6:
      put(kJobAt, 32);
      return bytes;
    case 7:
      put(kBulkHelloBytes, bytes.size() - kBulkHelloBytes);  // without the key
      return bytes + noise(dice, 3000);
    default:
      return bytes;  // an old conversation, perhaps in a new ballot
  }
}

}  // namespace troupe::comm::test
