#include "comm/certificates.hpp"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm/openssl.hpp"
#include "comm/security.hpp"
#include "comm/tls.hpp"
#include "kernels/base/error.hpp"

namespace troupe::comm {

namespace {

namespace fs = std::filesystem;

constexpr int kAuthorityDays = 3653;
constexpr int kDaysMax = 3650;
constexpr long kSecondsADay = 24 * 60 * 60;
constexpr long kClockSkewSeconds = 60 * 60;  // nodes' clocks may be this far behind the one that signs

struct Authority {
  Certificate certificate;
  Key key;
};

// Throws unless `good`.
void must(bool good, std::string_view what) {
  if (!good) throw error(ErrorKind::security, "OpenSSL cannot {}: {}", what, take_ssl_errors());
}

bool is_ip(const std::string& host) {
  unsigned char address[sizeof(in6_addr)];
  return inet_pton(AF_INET, host.c_str(), address) == 1 || inet_pton(AF_INET6, host.c_str(), address) == 1;
}

bool is_dns_name(const std::string& host) {
  return !host.empty() && host.size() <= 253 &&
         host.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") ==
             std::string::npos;
}

Key new_key() {
  Key key(EVP_EC_gen("P-256"));
  must(key != nullptr, "make a key");
  return key;
}

void add_extension(X509* certificate, X509* issuer, int id, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  using Extension = std::unique_ptr<X509_EXTENSION, OpenSslFree<X509_EXTENSION_free>>;
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str()));
  must(extension && X509_add_ext(certificate, extension.get(), -1) == 1,
       "write an extension of a certificate");
}

// A certificate for `key` with a random serial number and the given subject; neither extended nor signed.
Certificate draft(EVP_PKEY* key, const std::string& organisation, const std::string& name, int days) {
  Certificate certificate(X509_new());
  uint64_t serial = 0;
  must(certificate && RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof serial) == 1,
       "begin a certificate");
  X509* const x = certificate.get();
  X509_NAME* const subject = X509_get_subject_name(x);
  const auto field = [&](const char* key_of_field, const std::string& value) {
    return X509_NAME_add_entry_by_txt(subject, key_of_field, MBSTRING_UTF8,
                                      reinterpret_cast<const unsigned char*>(value.data()), int(value.size()),
                                      -1, 0) == 1;
  };
  must(X509_set_version(x, X509_VERSION_3) == 1 &&
           ASN1_INTEGER_set_uint64(X509_get_serialNumber(x), serial >> 1) == 1 &&
           X509_gmtime_adj(X509_getm_notBefore(x), -kClockSkewSeconds) != nullptr &&
           X509_gmtime_adj(X509_getm_notAfter(x), kSecondsADay * days) != nullptr &&
           X509_set_pubkey(x, key) == 1 && field("O", organisation) && field("CN", name),
       "fill in a certificate");
  return certificate;
}

Authority new_authority(const std::string& cluster) {
  Key key = new_key();
  Certificate certificate = draft(key.get(), cluster, "Troupe authority", kAuthorityDays);
  X509* const x = certificate.get();
  must(X509_set_issuer_name(x, X509_get_subject_name(x)) == 1, "name the authority");
  add_extension(x, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  add_extension(x, x, NID_key_usage, "critical,keyCertSign,cRLSign");
  add_extension(x, x, NID_subject_key_identifier, "hash");
  must(X509_sign(x, key.get(), EVP_sha256()) > 0, "sign the authority");
  return {std::move(certificate), std::move(key)};
}

Certificate new_certificate(const CertificateRequest& request, EVP_PKEY* key, const Authority& authority,
                            const CertificateOptions& options) {
  Certificate certificate = draft(key, options.cluster, request.name, options.days);
  X509* const x = certificate.get();
  must(X509_set_issuer_name(x, X509_get_subject_name(authority.certificate.get())) == 1, "name the issuer");
  std::string names = "DNS:" + request.name;
  for (const std::string& host : request.hosts) names += (is_ip(host) ? ",IP:" : ",DNS:") + host;
  X509* const issuer = authority.certificate.get();
  add_extension(x, issuer, NID_subject_alt_name, names);
  add_extension(x, issuer, NID_basic_constraints, "critical,CA:FALSE");
  add_extension(x, issuer, NID_key_usage, "critical,digitalSignature");
  add_extension(x, issuer, NID_ext_key_usage, "serverAuth,clientAuth");
  add_extension(x, issuer, NID_authority_key_identifier, "keyid");
  must(X509_sign(x, authority.key.get(), EVP_sha256()) > 0, "sign a certificate");
  return certificate;
}

std::string pem_of(X509* certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  must(bio && PEM_write_bio_X509(bio.get(), certificate) == 1, "write a certificate");
  char* text = nullptr;
  const long bytes = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, size_t(bytes));
}

std::string pem_of(EVP_PKEY* key) {
  const Bio bio(BIO_new(BIO_s_mem()));
  must(bio && PEM_write_bio_PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1,
       "write a key");
  char* text = nullptr;
  const long bytes = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, size_t(bytes));
}

// Fails when the file exists; leaves none that is half written. The mode does not depend on the umask.
void write_new(const fs::path& path, const std::string& text, mode_t mode) {
  const auto fail = [&](const char* what) {
    return error(ErrorKind::file, "cannot {} {}: {}", what, path.string(), std::strerror(errno));
  };
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (descriptor < 0) throw fail("create");
  const bool has_mode = fchmod(descriptor, mode) == 0;
  size_t done = 0;
  while (has_mode && done < text.size()) {
    const ssize_t wrote = write(descriptor, text.data() + done, text.size() - done);
    if (wrote > 0) done += size_t(wrote);
    if (wrote <= 0 && errno != EINTR) break;
  }
  const bool good = has_mode && done == text.size() && fsync(descriptor) == 0;
  const Error failure = fail("write");
  close(descriptor);
  if (good) return;
  unlink(path.c_str());
  throw failure;
}

bool is_there(const fs::path& path) {
  std::error_code failure;
  const bool there = fs::exists(path, failure);
  if (failure)
    throw error(ErrorKind::file, "cannot look for {}: {}; check the path and its permissions", path.string(),
                failure.message());
  return there;
}

void check_options(const CertificateOptions& options) {
  if (options.folder.empty()) throw Error(ErrorKind::usage, "certificates need a folder to be written to");
  if (options.cluster.empty() || options.cluster.size() > 64)
    throw error(ErrorKind::usage, "the cluster's name '{}' must have 1 to 64 bytes", options.cluster);
  if (options.nodes.empty())
    throw Error(ErrorKind::usage, "certificates for which nodes? Give at least one name");
  if (options.days < 1 || options.days > kDaysMax)
    throw error(ErrorKind::usage, "certificates cannot be valid for {} days: 1 to {}", options.days,
                kDaysMax);
  std::set<std::string> names;
  for (const CertificateRequest& request : options.nodes) {
    if (!valid_node_name(request.name) || request.name == "ca")
      throw error(ErrorKind::usage,
                  "'{}' cannot be a node's name: 1 to 63 letters, digits, '-', '_' or '.', with at "
                  "least one letter, beginning with a letter or digit, and not 'ca'",
                  request.name);
    if (!names.insert(request.name).second)
      throw error(ErrorKind::usage, "node '{}' is named twice", request.name);
    for (const std::string& host : request.hosts)
      if (!is_ip(host) && !is_dns_name(host))
        throw error(ErrorKind::usage, "'{}' of node '{}' is neither a DNS name nor an IP address", host,
                    request.name);
    const fs::path base = fs::path(options.folder) / request.name;
    for (const char* suffix : {".pem", ".key"})
      if (fs::path path = base; is_there(path += suffix))
        throw error(ErrorKind::file,
                    "{} exists and will not be overwritten: remove it first, or choose another folder",
                    path.string());
  }
}

// The authority that is in the folder, or a new one, written there.
Authority authority_in(const fs::path& folder, const std::string& cluster,
                       std::vector<std::string>& written) {
  const std::string certificate_file = folder / "ca.pem", key_file = folder / "ca.key";
  const bool has_certificate = is_there(certificate_file), has_key = is_there(key_file);
  if (has_certificate != has_key)
    throw error(ErrorKind::file, "{} exists without {}: both are needed to sign certificates",
                has_certificate ? certificate_file : key_file, has_certificate ? key_file : certificate_file);
  if (has_certificate) {
    Authority found{parse_certificate(read_pem_file(certificate_file), certificate_file),
                    parse_key(read_pem_file(key_file), key_file)};
    if (X509_check_private_key(found.certificate.get(), found.key.get()) != 1)
      throw error(ErrorKind::security, "key {} does not belong to certificate {}", key_file,
                  certificate_file);
    return found;
  }
  Authority made = new_authority(cluster);
  write_new(key_file, pem_of(made.key.get()), 0600);
  written.push_back(key_file);
  write_new(certificate_file, pem_of(made.certificate.get()), 0644);
  written.push_back(certificate_file);
  return made;
}

// `written` has the paths of all that is there when it throws.
void write_certificates(const CertificateOptions& options, std::vector<std::string>& written) {
  const fs::path folder(options.folder);
  const Authority authority = authority_in(folder, options.cluster, written);
  for (const CertificateRequest& request : options.nodes) {
    const Key key = new_key();
    const Certificate certificate = new_certificate(request, key.get(), authority, options);
    const std::string base = folder / request.name;
    write_new(base + ".key", pem_of(key.get()), 0600);
    written.push_back(base + ".key");
    write_new(base + ".pem", pem_of(certificate.get()), 0644);
    written.push_back(base + ".pem");
  }
}

}  // namespace

std::vector<std::string> make_certificates(const CertificateOptions& options) {
  check_options(options);
  const fs::path folder(options.folder);
  std::error_code failure;
  if (fs::create_directories(folder, failure)) fs::permissions(folder, fs::perms::owner_all, failure);
  if (failure)
    throw error(ErrorKind::file, "cannot create the folder {}: {}", options.folder, failure.message());
  std::vector<std::string> written;
  try {
    write_certificates(options, written);
  } catch (...) {  // what is there already is refused the next time: all of them, or none
    for (const std::string& path : written) unlink(path.c_str());
    throw;
  }
  return written;
}

}  // namespace troupe::comm
