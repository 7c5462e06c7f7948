#include "actors/node/place.hpp"

#include <algorithm>
#include <future>
#include <random>

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include "actors/node_names.hpp"
#include "actors/security.hpp"
#include "comm/address.hpp"
#include "comm/link.hpp"
#include "comm/messages.pb.h"
#include "kernels/base/hash.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::seconds kAnswerPatience{10};

// The address of this machine that faces `peer`, by asking the routing table.
std::string own_host_towards(const comm::Address& peer) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_DGRAM;
  if (getaddrinfo(peer.host.c_str(), std::to_string(peer.port).c_str(), &hints, &found) != 0)
    return "127.0.0.1";
  std::string host = "127.0.0.1";
  const int socket = ::socket(found->ai_family, SOCK_DGRAM, 0);
  sockaddr_storage own{};
  socklen_t size = sizeof own;
  char text[NI_MAXHOST];
  if (socket >= 0 && connect(socket, found->ai_addr, found->ai_addrlen) == 0 &&
      getsockname(socket, reinterpret_cast<sockaddr*>(&own), &size) == 0 &&
      getnameinfo(reinterpret_cast<sockaddr*>(&own), size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) ==
          0)
    host = text;
  if (socket >= 0) close(socket);
  freeaddrinfo(found);
  return host;
}

struct Answer {
  std::string node;
  wire::ClusterInfo info;
};

Answer ask(const std::string& node, const std::string& address, const comm::Security& security) {
  auto answer = std::make_shared<std::promise<wire::ClusterInfo>>();
  auto once = std::make_shared<std::once_flag>();
  auto why = std::make_shared<std::pair<std::mutex, std::string>>();
  auto linked = std::make_shared<std::promise<std::string>>();
  auto linked_once = std::make_shared<std::once_flag>();
  comm::LinkEvents events;
  events.up = [=](const comm::LinkPeer& peer) {
    std::call_once(*linked_once, [&] { linked->set_value(peer.node); });
  };
  events.message = [=](const comm::LinkPeer&, const wire::Envelope& message) {
    if (message.has_cluster_info()) std::call_once(*once, [&] { answer->set_value(message.cluster_info()); });
  };
  events.down = [=](const comm::LinkPeer&, const Error& problem) {
    const std::lock_guard lock(why->first);
    why->second = problem.what();
  };
  comm::LinkOptions options;
  options.incarnation = comm::new_incarnation();
  options.node = "client:" + to_hex(options.incarnation.data(), 8);
  options.security = security;
  comm::LinkHub links(options, std::move(events));
  links.dial(node, address);
  std::future<std::string> is_linked = linked->get_future();
  std::future<wire::ClusterInfo> info = answer->get_future();
  if (is_linked.wait_for(kAnswerPatience) == std::future_status::ready) {
    wire::Envelope question;
    question.mutable_ask_cluster();
    const std::string who = is_linked.get();
    links.send(who, question);
    if (info.wait_for(kAnswerPatience) == std::future_status::ready) return {who, info.get()};
  }
  const std::lock_guard lock(why->first);
  throw error(
      ErrorKind::network, "no node answers at {}: {}{}", address,
      why->second.empty() ? "nothing came back" : why->second,
      security.tls() ? "" : "; if the cluster has certificates, name their folder with --certificates");
}

// One of the guests' places that nobody has, by chance: two who join at once hardly choose the same.
std::string free_place(const config::ClusterConfig& cluster, const wire::ClusterInfo& info) {
  std::vector<std::string> free;
  for (const config::NodeConfig& node : cluster.nodes)
    if (node.guest && std::find(info.linked().begin(), info.linked().end(), node.name) == info.linked().end())
      free.push_back(node.name);
  if (free.empty())
    throw Error(
        ErrorKind::usage,
        cluster.guests == 0
            ? fmt::format(
                  "the cluster {} has no places for guests; set cluster.guests in the cluster file of "
                  "its nodes, or say with --name which of its nodes this is",
                  cluster.name)
            : fmt::format(
                  "all guests' places of the cluster {} are taken; raise cluster.guests in its cluster file",
                  cluster.name));
  std::random_device random;
  return free[random() % free.size()];
}

}  // namespace

Place find_place(const NodeOptions& options) {
  Place place;
  place.node = options.name;
  std::string own_host;
  if (options.join.empty()) {
    place.cluster = config::read_cluster_file(options.cluster_file);
  } else {
    const size_t at = options.join.find('@');
    const std::string asked =
        at == std::string::npos ? std::string(comm::kAnyNode) : options.join.substr(0, at);
    const std::string address = at == std::string::npos ? options.join : options.join.substr(at + 1);
    if (!options.certificates.empty() && (at == std::string::npos || options.name.empty()))
      throw error(
          ErrorKind::usage,
          "with --certificates say --join NAME@HOST:PORT, so that the node there can prove its name, and "
          "--name, whose certificate this node shall use");
    own_host = own_host_towards(comm::parse_address(address));
    config::ClusterConfig own;
    own.certificates = options.certificates;
    own.insecure = options.certificates.empty();  // the answer says whether the cluster allows that
    const auto [asked_node, info] = ask(asked, address, security_of(own, options.name));
    place.asked = {asked_node, address};
    place.cluster = config::parse_cluster("the cluster of " + address, info.cluster_toml());
    place.cluster.certificates = options.certificates;
    if (place.node.empty()) place.node = free_place(place.cluster, info);
  }
  const config::NodeConfig* found = place.cluster.find(place.node);
  if (found == nullptr)
    throw error(ErrorKind::usage, "{} names no node {}; its nodes are {}",
                options.join.empty() ? options.cluster_file : "the cluster of " + options.join, place.node,
                node_names(place.cluster));
  config::NodeConfig& node = place.cluster.nodes[size_t(found - place.cluster.nodes.data())];
  if (!options.listen.empty()) node.address = options.listen;
  if (node.address.empty() && options.join.empty())
    throw error(ErrorKind::usage,
                "{} is a guest, whose address the cluster file does not say; give --listen HOST:PORT",
                place.node);
  if (node.address.empty())
    node.address = own_host.find(':') == std::string::npos ? own_host + ":0" : "[" + own_host + "]:0";
  return place;
}

}  // namespace troupe::actors
