#include "comm/handshake_exchange.hpp"

#include <algorithm>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

namespace troupe::comm {

std::array<uint8_t, 32> random_bytes() {
  std::array<uint8_t, 32> bytes{};
  if (RAND_bytes(bytes.data(), int(bytes.size())) != 1)
    throw error(ErrorKind::security, "the system gives no random numbers (RAND_bytes failed)");
  return bytes;
}

Mac HandshakeExchange::mac(std::string_view label) const {
  std::string text(label);
  text += '\0';
  text += transcript_;
  Mac out{};
  unsigned size = 0;
  TROUPE_CHECK(HMAC(EVP_sha256(), key_.data(), int(key_.size()),
                    reinterpret_cast<const unsigned char*>(text.data()), text.size(), out.data(),
                    &size) != nullptr &&
               size == out.size());
  return out;
}

bool HandshakeExchange::receive_mac(std::string_view label) {
  const Mac wanted = mac(label);
  const Mac given = receive<Mac>();
  return CRYPTO_memcmp(wanted.data(), given.data(), wanted.size()) == 0;
}

void HandshakeExchange::write(std::span<const std::byte> bytes) {
  transcript_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (!bytes.empty()) {
    const Moved moved = channel_.write(bytes);
    if (moved.closed) throw error(ErrorKind::network, "{}", moved.why);
    bytes = bytes.subspan(moved.bytes);
    if (moved.bytes > 0) continue;
    if (patience_.over()) throw error(ErrorKind::timeout, "no answer");
    channel_.wait(false, true, patience_.next_look());
  }
}

bool HandshakeExchange::arrived(size_t bytes) {
  while (arrived_.size() < bytes) {
    const size_t before = arrived_.size();
    arrived_.resize(bytes);
    const Moved moved = channel_.read(std::span(arrived_).subspan(before));
    arrived_.resize(before + moved.bytes);
    if (moved.closed) throw error(ErrorKind::network, "{}", moved.why);
    if (moved.bytes == 0) return false;
  }
  return true;
}

void HandshakeExchange::read(std::span<std::byte> bytes) {
  const auto whole = bytes;
  const size_t early = std::min(arrived_.size(), bytes.size());
  std::copy_n(arrived_.begin(), early, bytes.begin());
  arrived_.erase(arrived_.begin(), arrived_.begin() + std::ptrdiff_t(early));
  bytes = bytes.subspan(early);
  while (!bytes.empty()) {
    const Moved moved = channel_.read(bytes);
    bytes = bytes.subspan(moved.bytes);
    if (moved.closed) throw error(ErrorKind::network, "{}", moved.why);
    if (moved.bytes > 0) continue;
    if (patience_.over()) throw error(ErrorKind::timeout, "no answer");
    channel_.wait(true, false, patience_.next_look());
  }
  transcript_.append(reinterpret_cast<const char*>(whole.data()), whole.size());
}

}  // namespace troupe::comm
