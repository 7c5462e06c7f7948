// Makes what mutual TLS needs: a certificate authority for the cluster and one certificate a node, as PEM
// files. Touches only the folder it is given; never overwrites a file. Call from one thread at a time per
// folder.
#pragma once

#include <string>
#include <vector>

namespace troupe::comm {

struct CertificateRequest {
  std::string name;                // of the node; becomes the certificate's subject and a DNS name in it
  std::vector<std::string> hosts;  // further DNS names and IP addresses that the certificate shall carry
};

struct CertificateOptions {
  std::string folder;              // created when it does not exist, for its owner only
  std::string cluster = "troupe";  // written into the authority's subject
  std::vector<CertificateRequest> nodes;
  int days = 825;  // validity of the nodes' certificates; the authority's is ten years
};

// Writes ca.pem and ca.key (or signs with those that are in the folder already), and NAME.pem and NAME.key
// for each node; keys are readable by their owner only. Returns the paths it wrote. Throws Error(usage) for a
// bad name, Error(file) when a file exists already or cannot be written, before anything is written where
// possible.
std::vector<std::string> make_certificates(const CertificateOptions& options);

}  // namespace troupe::comm
