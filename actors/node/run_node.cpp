#include "actors/node/run_node.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <sstream>
#include <vector>

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/send.hpp>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "actors/clock.hpp"
#include "actors/engines/devices.hpp"
#include "actors/node/door.hpp"
#include "actors/node/node.hpp"
#include "actors/node/place.hpp"
#include "actors/security.hpp"
#include "actors/wire.hpp"
#include "comm/messages.pb.h"
#include "comm/shared_memory.hpp"
#include "comm/tls.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::seconds kDrillJump{20};  // longer than any patience by default

// Handlers run on gRPC's threads, from before the node actor is there: peers dial as soon as this node
// listens.
class NodeDoor {
 public:
  void open(node_actor node) {
    node_ = std::move(node);
    door_.open();
  }
  void close() { door_.close(); }
  template <class Message>
  void pass(Message message) {
    door_.pass([this, message = std::move(message)] { caf::anon_send(node_, message); });
  }

 private:
  node_actor node_;
  Door door_;
};

comm::LinkEvents events_into(const std::shared_ptr<NodeDoor>& door) {
  comm::LinkEvents events;
  events.up = [door](const comm::LinkPeer& peer) { door->pass(LinkUp{peer.node, peer.client}); };
  events.message = [door](const comm::LinkPeer& peer, wire::Envelope message) {
    door->pass(
        LinkMessage{peer.node, peer.client, std::make_shared<const wire::Envelope>(std::move(message))});
  };
  events.down = [door](const comm::LinkPeer& peer, const Error& why) {
    const bool was_up = !peer.incarnation.empty();
    if (!was_up) spdlog::info("cannot reach {}: {}", peer.node, why.what());
    const std::string_view said = why.what();
    const bool replaced = said.find(comm::kReplaced) != said.npos;
    const bool closed = said.find(comm::kClosed) != said.npos;
    door->pass(LinkDown{peer.node, peer.client, was_up, replaced, closed, why.what()});
  };
  events.refused = [](const Error& why) { spdlog::warn("turned away: {}", why.what()); };
  return events;
}

std::shared_ptr<NodeServices> open_services(const NodeOptions& options,
                                            const std::shared_ptr<NodeDoor>& door) {
  auto services = std::make_shared<NodeServices>();
  const Place place = find_place(options);
  services->cluster = place.cluster;
  services->node = place.node;
  const config::NodeConfig* own = services->cluster.find(place.node);
  services->rank = scheduler::Rank(own - services->cluster.nodes.data());
  services->incarnation = comm::new_incarnation();
  services->host_id = comm::host_id();
  services->drill = options.drill;
  check_path("--data", options.data);
  check_path("--out", options.out);
  if (!options.data.empty()) services->data_folder = std::filesystem::absolute(options.data);
  if (!options.out.empty()) services->out_folder = std::filesystem::absolute(options.out);
  services->level = level_of(services->cluster);
  if (services->level > kernels::best_isa_level())
    throw error(
        ErrorKind::usage,
        "cluster.instruction_set is \"{}\", and this machine has {}; set it to what all machines of the "
        "cluster have",
        services->cluster.instruction_set, to_string(kernels::best_isa_level()));
  services->devices =
      find_devices(options.device.empty() ? config::parse_devices("device of node " + place.node, own->device)
                                          : config::parse_devices("--device", options.device));
  const comm::Security security = security_of(services->cluster, place.node);

  comm::LinkOptions links;
  links.node = place.node;
  links.cluster = services->cluster.name;
  links.incarnation = services->incarnation;
  links.listen_address = own->address;
  links.security = security;
  links.interval_ms = int(services->cluster.heartbeat_interval_ms);
  links.patience_ms = int(services->cluster.patience_ms);
  services->links = std::make_shared<comm::LinkHub>(links, events_into(door));

  const std::string host = own->address.substr(0, own->address.rfind(':'));
  if ((host == "0.0.0.0" || host == "[::]") && own->bulk_address.empty() &&
      services->cluster.nodes.size() > 1)
    spdlog::warn(
        "{} listens on {}, which is no address for nodes of other machines to open bulk connections to: name "
        "a host "
        "that they reach, or set bulk_address, with a port, here, and in their files where they reach it",
        place.node, own->address);
  comm::BulkListenerOptions bulk;
  bulk.address = own->bulk_address.empty() ? host + ":0" : own->bulk_address;
  if (security.tls()) {
    bulk.tls = comm::make_server_context(security, place.node);
    services->tls_client = comm::make_client_context(security, place.node);
  }
  services->bulk = std::make_shared<comm::BulkListener>(bulk);
  // Also a node that was gone for a while.
  for (size_t i = 0; i < services->cluster.nodes.size(); ++i) {
    const config::NodeConfig& peer = services->cluster.nodes[i];
    const bool known = !peer.guest && !peer.address.ends_with(":0");
    if (known && services->cluster.dials(services->rank, i)) services->links->dial(peer.name, peer.address);
  }
  // Where a guest is that it has asked, only this node knows; that one tells it of the others.
  const config::NodeConfig* asked = place.asked ? services->cluster.find(place.asked->node) : nullptr;
  if (asked != nullptr && asked->guest) services->links->dial(asked->name, place.asked->address);
  return services;
}

// The first line a parent reads: where this node listens.
void announce(int descriptor, const NodeServices& services) {
  if (descriptor < 0) return;
  const std::string line = services.links->listen_address() + " " + services.bulk->address() + "\n";
  if (write(descriptor, line.data(), line.size()) != ssize_t(line.size()))
    throw error(ErrorKind::file, "cannot tell the parent process where this node listens");
  close(descriptor);
}

// Until the node says that it is done; each SIGINT or SIGTERM is passed on, the second one as "now".
int wait_for_end(std::future<int>& ended, const sigset_t& signals, NodeDoor& door) {
  int asked = 0;
  while (ended.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    const timespec poll{0, 50'000'000};
    const int signal = sigtimedwait(&signals, nullptr, &poll);
    if (signal == SIGUSR2)
      make_clock_jump(kDrillJump);
    else if (signal > 0)
      door.pass(StopWanted{signal == SIGTERM ? "SIGTERM" : "SIGINT", ++asked > 1});
  }
  return ended.get();
}

}  // namespace

int run_node(const NodeOptions& options) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  if (options.drill) sigaddset(&signals, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread is made
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error like a full disk

  // Nobody would stop the job of a drill that was killed, nor wake the nodes that it had stopped. Where it is
  // gone before this, announce() ends the node.
  if (options.drill) prctl(PR_SET_PDEATHSIG, SIGKILL);

  const auto door = std::make_shared<NodeDoor>();
  const std::shared_ptr<NodeServices> services = open_services(options, door);
  announce(options.announce_fd, *services);
  spdlog::info("{} listens on {}", services->node, services->links->listen_address());
  if (services->devices.indices.size() > 1)
    spdlog::info("{} trains on {}: {}", services->node, to_string(services->devices),
                 describe_topology(services->devices));

  // From here on nothing throws: the end of an actor system waits for its actors.
  caf::actor_system_config config;
  std::istringstream none;
  config.parse({}, none);
  config.set("scheduler.policy", caf::atom("sharing"));
  config.set("scheduler.max-threads", 2);
  caf::actor_system system(config);

  auto ended = std::make_shared<std::promise<int>>();
  auto once = std::make_shared<std::once_flag>();
  std::future<int> end = ended->get_future();
  node_actor node = spawn_node(system, {services, options.one_job, [ended, once](int code) {
                                          std::call_once(*once, [&] { ended->set_value(code); });
                                        }});
  door->open(node);
  const int code = wait_for_end(end, signals, *door);
  door->close();
  services->links->close(2000);
  spdlog::info("{} ends with code {}", services->node, code);
  spdlog::shutdown();
  std::fflush(nullptr);
  // Roles may still be in the middle of a slot that nobody wants any more: the process does not wait for
  // them.
  std::_Exit(code);
}

}  // namespace troupe::actors
