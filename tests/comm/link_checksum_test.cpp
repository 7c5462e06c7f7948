#include "comm/link_checksum.hpp"

#include <doctest/doctest.h>

namespace troupe::comm::test {

TEST_CASE("a message comes back from its checksum, in its own place only, and never with a bit changed") {
  for (const size_t bytes : {0u, 1u, 7u, 8u, 100u}) {
    const std::string message(bytes, 'm');
    std::string sent = message;
    append_checksum(sent, 5);
    CHECK(sent.size() == bytes + kLinkChecksumBytes);
    CHECK(strip_checksum(sent, 5) == message);
    CHECK_FALSE(strip_checksum(sent, 4).has_value());
    CHECK_FALSE(strip_checksum(sent, 6).has_value());
    for (size_t bit = 0; bit < 8 * sent.size(); ++bit) {
      std::string flipped = sent;
      flipped[bit / 8] = char(flipped[bit / 8] ^ (1 << bit % 8));
      REQUIRE_FALSE(strip_checksum(flipped, 5).has_value());
    }
    for (size_t left = 0; left < sent.size(); ++left)
      REQUIRE_FALSE(strip_checksum(std::string_view(sent).substr(0, left), 5).has_value());
  }
}

}  // namespace troupe::comm::test
