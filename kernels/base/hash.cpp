#include "kernels/base/hash.hpp"

#include <openssl/evp.h>
#include <xxhash.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h>  // the library's own choice of instruction set: the same hash at four times the speed
#endif

#include "kernels/base/error.hpp"

namespace troupe {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  TROUPE_CHECK(state_->context != nullptr && EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

Sha256& Sha256::update(const void* data, size_t bytes) {
  TROUPE_CHECK(EVP_DigestUpdate(state_->context, data, bytes) == 1);
  return *this;
}

std::array<uint8_t, 32> Sha256::digest() {
  std::array<uint8_t, 32> out{};
  unsigned size = 0;
  TROUPE_CHECK(EVP_DigestFinal_ex(state_->context, out.data(), &size) == 1 && size == out.size());
  return out;
}

std::string Sha256::hex() {
  const auto bytes = digest();
  return to_hex(bytes.data(), bytes.size());
}

std::string sha256_hex(const void* data, size_t bytes) { return Sha256().update(data, bytes).hex(); }

std::string to_hex(const void* data, size_t bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  const auto* p = static_cast<const uint8_t*>(data);
  std::string out;
  out.reserve(2 * bytes);
  for (size_t i = 0; i < bytes; ++i) {
    out += kDigits[p[i] >> 4];
    out += kDigits[p[i] & 15];
  }
  return out;
}

uint64_t checksum64(const void* data, size_t bytes) { return XXH3_64bits(data, bytes); }

struct Checksum64::State {
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> xxh{XXH3_createState(), XXH3_freeState};
};
Checksum64::Checksum64() : state_(std::make_unique<State>()) {
  TROUPE_CHECK(state_->xxh != nullptr && XXH3_64bits_reset(state_->xxh.get()) == XXH_OK);
}
Checksum64::~Checksum64() = default;
void Checksum64::update(const void* data, size_t bytes) { XXH3_64bits_update(state_->xxh.get(), data, bytes); }
uint64_t Checksum64::value() const { return XXH3_64bits_digest(state_->xxh.get()); }

}  // namespace troupe
