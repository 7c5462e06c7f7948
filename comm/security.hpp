// How the nodes of a cluster trust one another: mutual TLS with certificates of one authority, or nothing on
// loopback. Each node's certificate carries the node's name, and a peer must prove the name it says it has.
// Values; thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace troupe::comm {

struct Security {
  std::string ca_file;           // PEM: the cluster's certificate authority
  std::string certificate_file;  // PEM: this node's certificate
  std::string key_file;          // PEM: its private key
  bool insecure = false;         // allows addresses beyond loopback without certificates
  bool tls() const { return !ca_file.empty() || !certificate_file.empty() || !key_file.empty(); }
};

// The files of `security`, read and checked.
struct Credentials {
  std::string ca_pem;
  std::string certificate_pem;
  std::string key_pem;
};

// REQUIRES security.tls(). Reads the three files and checks that they parse, that the certificate is signed
// by the authority, belongs to the key, is valid today and carries the name `node` (a client may use any
// certificate of the authority: give it an empty name). Throws Error(file) or Error(security) that names the
// file and what is wrong.
Credentials load_credentials(const Security& security, std::string_view node);

// 1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit, with at least one letter.
bool valid_node_name(std::string_view name);

}  // namespace troupe::comm
