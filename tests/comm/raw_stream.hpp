// The dialling end of a link's stream without any of its manners: sends the bytes it is given and tells what
// came back.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comm/link.hpp"
#include "comm/messages.pb.h"
#include "comm/security.hpp"

namespace troupe::comm::test {

struct RawAnswer {
  int status = 0;                     // gRPC's code
  std::string text;                   // with it
  std::vector<std::string> messages;  // what came before the end, signs of life left out
};

struct RawTls {
  Credentials credentials;  // empty certificate and key: shows none
  std::string node;         // whom the other end must prove to be
};

// Sends `messages` one after the other and reads until the other end closes the stream, or `answers` have
// come.
RawAnswer talk_raw(const std::string& address, const std::vector<std::string>& messages,
                   const std::optional<RawTls>& tls = std::nullopt, size_t answers = 1000);

// What really goes over the stream: the messages with their checksums, as talk_raw() sends them. Those that
// `talk_bytes` is given go as they are.
std::vector<std::string> with_checksums(std::vector<std::string> messages);
RawAnswer talk_bytes(const std::string& address, const std::vector<std::string>& messages,
                     const std::optional<RawTls>& tls = std::nullopt, size_t answers = 1000);

// A hello as `node` of cluster "test" would say it.
wire::Envelope raw_hello(const std::string& node);

}  // namespace troupe::comm::test
