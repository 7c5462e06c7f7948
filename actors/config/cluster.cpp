#include "actors/config/cluster.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include <fmt/format.h>

#include "actors/config/device.hpp"
#include "actors/config/reader.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/host_name.hpp"

namespace troupe::config {

namespace {

constexpr std::array kLevels = {"auto", "v2", "v3", "v4"};

// By its place in kLevels.
void describe_level(std::string& level, FieldVisitor& v) {
  std::vector<Choice> choices;
  for (const char* name : kLevels) choices.push_back({name, int64_t(choices.size())});
  int64_t chosen = std::find(kLevels.begin(), kLevels.end(), level) - kLevels.begin();
  v.choice("cluster.instruction_set", chosen, choices);
  level = kLevels.at(size_t(chosen));
}

void describe(ClusterConfig& c, FieldVisitor& v) {
  v.text("cluster.name", c.name);
  v.number("cluster.heartbeat_interval_ms", c.heartbeat_interval_ms, {10, 60'000});
  v.number("cluster.patience_ms", c.patience_ms, {500, 600'000});
  v.boolean("cluster.quorum", c.quorum);
  v.number("cluster.guests", c.guests, {0, 1023});
  v.pick("cluster.transport", c.transport,
         {{"auto", int64_t(Transport::automatic)}, {"tcp", int64_t(Transport::tcp)}, {"shm", int64_t(Transport::shm)}});
  describe_level(c.instruction_set, v);
  v.text("security.certificates", c.certificates);
  v.boolean("security.insecure", c.insecure);
}

void describe(NodeConfig& n, FieldVisitor& v) {
  v.text("name", n.name);
  v.text("address", n.address);
  v.text("bulk_address", n.bulk_address);
  v.number("threads", n.threads, {0, 1024});
  v.text("device", n.device);
}

// host:port with a port of 0..65535.
void check_address(std::string_view file, std::string_view node, std::string_view key, std::string_view address) {
  const auto colon = address.rfind(':');
  unsigned port = 0;
  const auto digits = colon == std::string_view::npos ? std::string_view{} : address.substr(colon + 1);
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  const bool number = !digits.empty() && result.ec == std::errc{} && result.ptr == digits.data() + digits.size();
  if (!number || port > 65535 || why_no_host(address.substr(0, colon)) != nullptr)
    throw error(ErrorKind::usage,
                "{}: {} of node {} is \"{}\"; it must be host:port, as in \"127.0.0.1:7000\" or \"[::1]:7000\"",
                file, key, node, address);
}

// What links and certificates take for one.
bool is_node_name(const std::string& name) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto plain = [&](char c) { return is_letter(c) || is_digit(c) || c == '-' || c == '_' || c == '.'; };
  return !name.empty() && name.size() <= 63 && (is_letter(name[0]) || is_digit(name[0])) &&
         std::all_of(name.begin(), name.end(), plain) && std::any_of(name.begin(), name.end(), is_letter);
}

void check(std::string_view file, const ClusterConfig& c) {
  if (c.listed().empty()) throw error(ErrorKind::usage, "{}: no [[nodes]] entry; a cluster needs at least one node", file);
  if (c.nodes.size() > 1024)
    throw error(ErrorKind::usage, "{}: {} nodes, guests included; at most 1024", file, c.nodes.size());
  std::set<std::string_view> names, addresses;
  for (size_t i = 0; i < c.nodes.size(); ++i) {
    const NodeConfig& n = c.nodes[i];
    if (!is_node_name(n.name))
      throw error(ErrorKind::usage,
                  "{}: nodes[{}].name is \"{}\"; it must be 1 to 63 letters, digits, '-', '_' or '.', begin with a letter "
                  "or digit and have a letter",
                  file, i, n.name);
    if (!names.insert(n.name).second)
      throw error(ErrorKind::usage, "{}: two nodes are called {}; names must differ", file, n.name);
    if (n.guest) continue;
    parse_devices(fmt::format("{}: device of node {}", file, n.name), n.device);
    check_address(file, n.name, "address", n.address);
    if (!n.bulk_address.empty()) check_address(file, n.name, "bulk_address", n.bulk_address);
    if (!n.address.ends_with(":0") && !addresses.insert(n.address).second)
      throw error(ErrorKind::usage, "{}: two nodes listen on {}; addresses must differ", file, n.address);
  }
  if (c.patience_ms < 2 * c.heartbeat_interval_ms)
    throw error(ErrorKind::usage,
                "{}: cluster.patience_ms ({}) must be at least twice cluster.heartbeat_interval_ms ({})", file,
                c.patience_ms, c.heartbeat_interval_ms);
}

}  // namespace

const NodeConfig* ClusterConfig::find(std::string_view node) const {
  const auto found = std::find_if(nodes.begin(), nodes.end(), [&](const NodeConfig& n) { return n.name == node; });
  return found == nodes.end() ? nullptr : &*found;
}

namespace {

void add_guests(ClusterConfig& cluster) {
  for (int64_t i = 1; i <= cluster.guests; ++i) {
    NodeConfig& guest = cluster.nodes.emplace_back();
    guest.name = fmt::format("guest-{}", i);
    guest.address.clear();
    guest.guest = true;
  }
}

}  // namespace

ClusterConfig parse_cluster(std::string_view file, std::string_view text) {
  ClusterConfig cluster;
  read_toml(file, text, [&](FieldVisitor& v) { describe(cluster, v); }, {"nodes"});
  read_tables(file, text, "nodes", [&](size_t index) -> Describe {
    cluster.nodes.resize(index + 1);
    return [&cluster, index](FieldVisitor& v) { describe(cluster.nodes[index], v); };
  });
  add_guests(cluster);
  check(file, cluster);
  return cluster;
}

ClusterConfig read_cluster_file(const std::string& path) { return parse_cluster(path, read_text_file(path)); }

std::string to_toml(const ClusterConfig& cluster) {
  ClusterConfig copy = cluster;
  std::string out = canonical_text([&](FieldVisitor& v) { describe(copy, v); });
  for (NodeConfig& node : copy.nodes)
    if (!node.guest) out += "\n[[nodes]]\n" + canonical_text([&](FieldVisitor& v) { describe(node, v); });
  return out;
}

ClusterConfig local_cluster(int64_t nodes, int64_t threads, const std::vector<std::string>& devices) {
  const std::vector<std::string> of_nodes = split_devices(devices);
  for (const std::string& device : of_nodes) parse_devices("--device", device);
  ClusterConfig cluster;
  cluster.name = "local";
  for (int64_t i = 0; i < nodes; ++i) {
    NodeConfig node;
    node.name = fmt::format("node{}", i);
    node.threads = threads;
    if (!of_nodes.empty()) node.device = of_nodes[size_t(i) % of_nodes.size()];
    cluster.nodes.push_back(node);
  }
  return cluster;
}

}  // namespace troupe::config
