#include "comm/link_hello.hpp"

#include <algorithm>

#include <fmt/ranges.h>

#include "comm/messages.hpp"

namespace troupe::comm {

namespace {
constexpr std::string_view kClientPrefix = "client:";
constexpr char kVersion[] = TROUPE_VERSION;
}  // namespace

bool is_client_name(std::string_view node) {
  if (!node.starts_with(kClientPrefix)) return false;
  const std::string_view hex = node.substr(kClientPrefix.size());
  return !hex.empty() && hex.size() <= 32 &&
         hex.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

wire::Envelope make_hello(const LinkOptions& options) {
  wire::Envelope envelope;
  wire::Hello& hello = *envelope.mutable_hello();
  hello.set_wire_version(wire::kWireVersion);
  hello.set_node(options.node);
  hello.set_incarnation(options.incarnation);
  hello.set_cluster(options.cluster);
  hello.set_version(kVersion);
  return envelope;
}

std::optional<Error> check_hello(const wire::Envelope& envelope, const LinkOptions& options,
                                 const HelloCheck& check) {
  if (!envelope.has_hello())
    return error(ErrorKind::protocol, "the first message is '{}' instead of 'hello'",
                 wire::kind_name(envelope));
  const wire::Hello& hello = envelope.hello();
  const std::string& node = hello.node();
  if (!is_client_name(node) && !valid_node_name(node))
    return error(ErrorKind::protocol, "'{}' is no name of a node", node);
  if (hello.wire_version() != wire::kWireVersion)
    return error(
        ErrorKind::version,
        "'{}' (troupe {}) speaks wire version {}, '{}' (troupe {}) speaks version {}: run the same version "
        "of troupe on all nodes",
        node, hello.version(), hello.wire_version(), options.node, kVersion, wire::kWireVersion);
  // A client may not know yet which cluster it is talking to.
  const bool unknown = (is_client_name(options.node) && options.cluster.empty()) ||
                       (is_client_name(node) && hello.cluster().empty());
  if (hello.cluster() != options.cluster && !unknown)
    return error(
        ErrorKind::usage,
        "'{}' belongs to the cluster '{}', '{}' to the cluster '{}': check the address and the cluster file",
        node, hello.cluster(), options.node, options.cluster);
  if (!check.dialled.empty() && check.dialled != kAnyNode && node != check.dialled)
    return error(ErrorKind::usage,
                 "'{}' answers where '{}' was expected: check the addresses in the cluster file", node,
                 check.dialled);
  if (node == options.node)
    return error(ErrorKind::usage, "another process calls itself '{}' too: each node needs its own name",
                 node);
  const auto& names = check.certificate_names;
  if (check.tls && check.dialled.empty() && !is_client_name(node) &&
      std::find(names.begin(), names.end(), node) == names.end())
    return error(ErrorKind::security, "the peer calls itself '{}', but its certificate is for '{}'", node,
                 fmt::join(names, "', '"));
  return std::nullopt;
}

}  // namespace troupe::comm
