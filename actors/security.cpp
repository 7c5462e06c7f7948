#include "actors/security.hpp"

#include <filesystem>

namespace troupe::actors {

comm::Security security_of(const config::ClusterConfig& cluster, const std::string& certificate) {
  comm::Security security;
  security.insecure = cluster.insecure;
  if (cluster.certificates.empty()) return security;
  const std::filesystem::path folder(cluster.certificates);
  security.ca_file = folder / "ca.pem";
  security.certificate_file = folder / (certificate + ".pem");
  security.key_file = folder / (certificate + ".key");
  return security;
}

comm::Security client_security(const config::ClusterConfig& cluster) {
  if (cluster.certificates.empty()) return security_of(cluster, "");
  for (const config::NodeConfig& node : cluster.nodes)
    if (std::filesystem::exists(std::filesystem::path(cluster.certificates) / (node.name + ".key")))
      return security_of(cluster, node.name);
  return security_of(cluster, "client");
}

kernels::IsaLevel level_of(const config::ClusterConfig& cluster) {
  const auto level = kernels::parse_isa_level(cluster.instruction_set);
  return level ? *level : kernels::best_isa_level();
}

}  // namespace troupe::actors
