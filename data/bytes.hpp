// Little-endian records in memory: what chunks, shards and token files are made of. ByteReader checks every
// length and throws Error(corrupt) that names what was read; it keeps views into bytes that the caller owns.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "kernels/base/error.hpp"

namespace troupe::data {

static_assert(std::endian::native == std::endian::little, "files are little-endian and mapped as they are");

class ByteWriter {
 public:
  template <typename T>
  void put(T value) {
    static_assert(std::is_arithmetic_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void put_text(std::string_view text) {
    TROUPE_CHECK(text.size() <= UINT32_MAX);
    put(uint32_t(text.size()));
    bytes_.append(text);
  }
  // Tokens of `width` bytes each (2 or 4). REQUIRES that they fit.
  void put_tokens(std::span<const int32_t> tokens, int width) {
    for (const int32_t token : tokens) {
      if (width == 2)
        put(uint16_t(token));
      else
        put(token);
    }
  }
  void put_raw(std::string_view bytes) { bytes_.append(bytes); }
  void align(size_t multiple) { bytes_.append((multiple - bytes_.size() % multiple) % multiple, '\0'); }

  std::string& bytes() { return bytes_; }
  size_t size() const { return bytes_.size(); }

 private:
  std::string bytes_;
};

class ByteReader {
 public:
  ByteReader(std::string_view bytes, std::string_view what) : bytes_(bytes), what_(what) {}

  template <typename T>
  T get() {
    static_assert(std::is_arithmetic_v<T>);
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view get_text() { return take(get<uint32_t>()); }
  std::vector<int32_t> get_tokens(uint64_t count, int width) {
    if (count > bytes_.size()) fail();
    const std::string_view raw = take(count * uint64_t(width));
    std::vector<int32_t> tokens(count);
    for (size_t i = 0; i < count; ++i) {
      if (width == 2) {
        uint16_t token;
        std::memcpy(&token, raw.data() + 2 * i, 2);
        tokens[i] = token;
      } else {
        std::memcpy(&tokens[i], raw.data() + 4 * i, 4);
      }
    }
    return tokens;
  }
  std::string_view take(uint64_t count) {
    if (count > bytes_.size()) fail();
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  bool done() const { return bytes_.empty(); }
  size_t left() const { return bytes_.size(); }
  [[noreturn]] void fail() const {
    throw error(ErrorKind::corrupt, "cannot read {}: it is damaged or cut short", what_);
  }

 private:
  std::string_view bytes_;
  std::string what_;
};

}  // namespace troupe::data
