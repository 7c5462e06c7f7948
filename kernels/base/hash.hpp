// Hashes: SHA-256 (OpenSSL) for what people compare and sign, XXH3 (xxHash) for checksums of hot data.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace troupe {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  Sha256& update(const void* data, size_t bytes);
  Sha256& update(std::string_view text) { return update(text.data(), text.size()); }
  std::array<uint8_t, 32> digest();  // may be called once
  std::string hex();                 // the same, 64 lower-case digits

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(const void* data, size_t bytes);
std::string to_hex(const void* data, size_t bytes);

// XXH3, 64 bits, seed 0: of bytes at once, or piece by piece.
uint64_t checksum64(const void* data, size_t bytes);
class Checksum64 {
 public:
  Checksum64();
  ~Checksum64();
  Checksum64(const Checksum64&) = delete;
  Checksum64& operator=(const Checksum64&) = delete;

  void update(const void* data, size_t bytes);
  uint64_t value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace troupe
