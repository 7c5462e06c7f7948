#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "actors/config/cluster.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "comm/address.hpp"
#include "comm/certificates.hpp"
#include "kernels/base/error.hpp"

namespace troupe::cli {

namespace {

struct CertsArguments {
  comm::CertificateOptions options;
  std::string cluster;
  std::vector<std::string> nodes;  // NAME or NAME=HOST,HOST
};

comm::CertificateRequest parse_node(const std::string& text) {
  comm::CertificateRequest out;
  const auto equals = text.find('=');
  out.name = text.substr(0, equals);
  if (equals == std::string::npos) return out;
  for (size_t begin = equals + 1; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) out.hosts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

// The nodes of a cluster file, each with the host it listens on.
void add_cluster(CertsArguments& a) {
  const config::ClusterConfig cluster = config::read_cluster_file(a.cluster);
  a.options.cluster = cluster.name;
  for (const auto& node : cluster.listed())
    a.options.nodes.push_back({node.name, {comm::parse_address(node.address).host}});
  for (const auto& guest : std::span(cluster.nodes).subspan(cluster.listed().size()))
    a.options.nodes.push_back({guest.name, {}});  // from anywhere
}

}  // namespace

void add_certs(CLI::App& app, int&) {
  CLI::App* command = app.add_subcommand("certs", "Make the certificates with which nodes trust one another");
  auto a = std::make_shared<CertsArguments>();
  command->add_option("--out", a->options.folder, "Folder to write to")->required()->check(not_empty());
  command->add_option("--cluster", a->cluster, "Make one for each node of this cluster file")
      ->check(not_empty());
  command->add_option("--node", a->nodes, "NAME or NAME=HOST,HOST: make one for this node");
  command->add_option("--days", a->options.days, "Validity")
      ->check(CLI::Range(1, 3650))
      ->capture_default_str();
  command->callback([a] {
    if (!a->cluster.empty()) add_cluster(*a);
    for (const std::string& node : a->nodes) a->options.nodes.push_back(parse_node(node));
    if (a->options.nodes.empty())
      throw error(ErrorKind::usage, "no nodes named; give --cluster FILE or --node NAME");
    for (const std::string& path : comm::make_certificates(a->options)) fmt::print("{}\n", path);
  });
}

}  // namespace troupe::cli
