// One end of a handshake: sends and receives messages of fixed size within a deadline, and proves that all of
// them were seen by who has the key. Not thread-safe.
#pragma once

#include <array>
#include <cstring>
#include <string_view>
#include <type_traits>
#include <vector>

#include "comm/byte_channel.hpp"
#include "comm/patience.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::comm {

using Mac = std::array<uint8_t, 32>;

std::array<uint8_t, 32> random_bytes();

class HandshakeExchange {
 public:
  HandshakeExchange(ByteChannel& channel, std::string_view key, Patience patience)
      : channel_(channel), key_(key), patience_(std::move(patience)) {}

  // Where only the first message shows in which session it is. The key must outlive this.
  void set_key(std::string_view key) { key_ = key; }

  // Whether so many bytes are there to be received without waiting. Throws Error(network) when the peer is
  // gone.
  bool arrived(size_t bytes);

  // Throw Error(network) when the peer is gone and Error(timeout) at the deadline.
  template <typename Message>
  void send(const Message& message) {
    static_assert(std::is_trivially_copyable_v<Message> && std::has_unique_object_representations_v<Message>);
    write({reinterpret_cast<const std::byte*>(&message), sizeof message});
  }
  template <typename Message>
  Message receive() {
    static_assert(std::is_trivially_copyable_v<Message> && std::has_unique_object_representations_v<Message>);
    Message message;
    read({reinterpret_cast<std::byte*>(&message), sizeof message});
    return message;
  }
  // A MAC over `label` and everything that went over the wire so far.
  void send_mac(std::string_view label) { send(mac(label)); }
  bool receive_mac(std::string_view label);

 private:
  Mac mac(std::string_view label) const;
  void write(std::span<const std::byte> bytes);
  void read(std::span<std::byte> bytes);

  ByteChannel& channel_;
  std::string_view key_;
  Patience patience_;
  std::string transcript_;          // bounded: a handshake has five small messages
  std::vector<std::byte> arrived_;  // and not yet received
};

}  // namespace troupe::comm
