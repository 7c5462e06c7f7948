#include "comm/security.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

#include "comm/openssl.hpp"
#include "comm/tls.hpp"
#include "kernels/base/error.hpp"

namespace troupe::comm {

namespace {

constexpr size_t kPemBytesMax = size_t{1} << 20;
constexpr char kRemedy[] = "make new ones with 'troupe certs'";

std::string time_text(const ASN1_TIME* time) {
  const Bio bio(BIO_new(BIO_s_mem()));
  char* text = nullptr;
  if (bio && ASN1_TIME_print(bio.get(), time) == 1) {
    const long bytes = BIO_get_mem_data(bio.get(), &text);
    return std::string(text, size_t(bytes));
  }
  return "an unreadable time";
}

void check_dates(const X509* certificate, const std::string& file) {
  if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
    throw error(ErrorKind::security, "certificate {} is valid from {} only: is this machine's clock right?",
                file, time_text(X509_get0_notBefore(certificate)));
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
    throw error(ErrorKind::security, "certificate {} expired on {}: {}", file,
                time_text(X509_get0_notAfter(certificate)), kRemedy);
}

void check_signed(X509* certificate, X509* authority, const Security& security) {
  const Store store(X509_STORE_new());
  const StoreContext context(X509_STORE_CTX_new());
  TROUPE_CHECK(store && context && X509_STORE_add_cert(store.get(), authority) == 1 &&
               X509_STORE_CTX_init(context.get(), store.get(), certificate, nullptr) == 1);
  if (X509_verify_cert(context.get()) == 1) return;
  throw error(ErrorKind::security, "certificate {} is not one of the authority in {}: {}",
              security.certificate_file, security.ca_file,
              X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get())));
}

void check_name(X509* certificate, std::string_view node, const std::string& file) {
  if (X509_check_host(certificate, node.data(), node.size(), X509_CHECK_FLAG_NO_WILDCARDS, nullptr) == 1)
    return;
  throw error(ErrorKind::security,
              "certificate {} is not for node '{}': give each node the one with its name, or {}", file, node,
              kRemedy);
}

}  // namespace

std::string read_pem_file(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw error(ErrorKind::file, "cannot open {}: {}", file, std::strerror(errno));
  std::string text(kPemBytesMax + 1, '\0');
  in.read(text.data(), std::streamsize(text.size()));
  if (in.bad()) throw error(ErrorKind::file, "cannot read {}: {}", file, std::strerror(errno));
  text.resize(size_t(in.gcount()));
  if (text.size() > kPemBytesMax)
    throw error(ErrorKind::file, "{} is larger than 1 MiB: no certificate is", file);
  return text;
}

Certificate parse_certificate(std::string_view pem, const std::string& file) {
  Certificate certificate(PEM_read_bio_X509(bio_over(pem).get(), nullptr, nullptr, nullptr));
  if (!certificate)
    throw error(ErrorKind::security, "{} holds no PEM certificate: {}", file, take_ssl_errors());
  return certificate;
}

Key parse_key(std::string_view pem, const std::string& file) {
  char no_password[] = "";
  Key key(PEM_read_bio_PrivateKey(bio_over(pem).get(), nullptr, nullptr, no_password));
  if (!key)
    throw error(ErrorKind::security, "{} holds no PEM key without a password: {}", file, take_ssl_errors());
  return key;
}

Credentials load_credentials(const Security& security, std::string_view node) {
  TROUPE_CHECK(security.tls());
  for (const auto& [file, what] :
       {std::pair{&security.ca_file, "authority (ca)"}, std::pair{&security.certificate_file, "certificate"},
        std::pair{&security.key_file, "key"}})
    if (file->empty())
      throw error(ErrorKind::usage, "security needs three files, and no {} is named: {}", what, kRemedy);
  take_ssl_errors();
  Credentials credentials{read_pem_file(security.ca_file), read_pem_file(security.certificate_file),
                          read_pem_file(security.key_file)};
  const Certificate authority = parse_certificate(credentials.ca_pem, security.ca_file);
  const Certificate certificate = parse_certificate(credentials.certificate_pem, security.certificate_file);
  const Key key = parse_key(credentials.key_pem, security.key_file);
  check_dates(authority.get(), security.ca_file);
  check_dates(certificate.get(), security.certificate_file);
  check_signed(certificate.get(), authority.get(), security);
  if (X509_check_private_key(certificate.get(), key.get()) != 1)
    throw error(ErrorKind::security, "key {} does not belong to certificate {}", security.key_file,
                security.certificate_file);
  if (!node.empty()) check_name(certificate.get(), node, security.certificate_file);
  take_ssl_errors();
  return credentials;
}

bool valid_node_name(std::string_view name) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  constexpr std::string_view kDigits = "0123456789";
  if (name.empty() || name.size() > 63) return false;
  const auto has = [](std::string_view set, char c) { return set.find(c) != std::string_view::npos; };
  if (!has(kLetters, name[0]) && !has(kDigits, name[0])) return false;
  bool letter = false;
  for (const char c : name) {
    letter = letter || has(kLetters, c);
    if (!has(kLetters, c) && !has(kDigits, c) && !has("-_.", c)) return false;
  }
  return letter;
}

}  // namespace troupe::comm
