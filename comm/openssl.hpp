// Owners of OpenSSL's objects and its error queue. Internal to security, certificates and tls.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

namespace troupe::comm {

template <auto Free>
struct OpenSslFree {
  template <typename T>
  void operator()(T* object) const noexcept {
    Free(object);
  }
};
using Bio = std::unique_ptr<BIO, OpenSslFree<BIO_free>>;
using Certificate = std::unique_ptr<X509, OpenSslFree<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, OpenSslFree<EVP_PKEY_free>>;
using Store = std::unique_ptr<X509_STORE, OpenSslFree<X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, OpenSslFree<X509_STORE_CTX_free>>;

inline Bio bio_over(std::string_view bytes) {
  return Bio(BIO_new_mem_buf(bytes.data(), int(bytes.size())));
}

// Each throws Error(security) that names `file` when the text is not what it should be.
Certificate parse_certificate(std::string_view pem, const std::string& file);
Key parse_key(std::string_view pem, const std::string& file);

// At most 1 MiB. Throws Error(file).
std::string read_pem_file(const std::string& file);

}  // namespace troupe::comm
