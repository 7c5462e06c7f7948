#include "actors/client/cluster_client.hpp"

#include <cstring>

#include "actors/security.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::actors {

namespace {

constexpr size_t kEventsMax = 4096;

}  // namespace

uint64_t new_order() {
  const std::string bytes = comm::new_incarnation();
  uint64_t order = 0;
  std::memcpy(&order, bytes.data(), sizeof order);
  return order;
}

ClusterClient::ClusterClient(const config::ClusterConfig& cluster) : cluster_(cluster) {
  comm::LinkEvents events;
  events.up = [this](const comm::LinkPeer& peer) { push({ClusterEvent::Kind::up, peer.node, "", {}}); };
  events.message = [this](const comm::LinkPeer& peer, wire::Envelope message) {
    push({ClusterEvent::Kind::message, peer.node, "", std::move(message)});
  };
  events.down = [this](const comm::LinkPeer& peer, const Error& why) {
    push({ClusterEvent::Kind::down, peer.node, why.what(), {}});
  };
  comm::LinkOptions options;
  options.incarnation = comm::new_incarnation();
  options.node = "client:" + to_hex(options.incarnation.data(), 8);
  options.cluster = cluster_.name;
  options.security = client_security(cluster_);
  options.interval_ms = int(cluster_.heartbeat_interval_ms);
  options.patience_ms = int(cluster_.patience_ms);
  links_ = std::make_unique<comm::LinkHub>(options, std::move(events));
  for (const config::NodeConfig& node : cluster_.listed()) links_->dial(node.name, node.address);
}

ClusterClient::~ClusterClient() {
  close();
}

void ClusterClient::dial(const std::string& node, const std::string& address) {
  links_->dial(node, address);
}

void ClusterClient::close() {
  links_->close(1000);
}

void ClusterClient::push(ClusterEvent event) {
  const std::lock_guard lock(mutex_);
  if (event.kind != ClusterEvent::Kind::message) {
    linked_[event.node] = event.kind == ClusterEvent::Kind::up;
    reasons_[event.node] = event.why;
  }
  const bool droppable = event.envelope.has_report();
  if (droppable && events_.size() >= kEventsMax) return;
  events_.push_back(std::move(event));
  arrived_.notify_one();
}

std::vector<std::string> ClusterClient::wait_for_links(std::chrono::milliseconds patience, size_t enough,
                                                       const std::function<bool()>& give_up) {
  std::unique_lock lock(mutex_);
  const auto all = [&] {
    for (const config::NodeConfig& node : cluster_.listed())
      if (!linked_[node.name]) return false;
    return true;
  };
  // What came before, attempts to dial that failed among it, is nothing that happens to a job of ours. Where
  // that goes on already, a node answers the order with its view.
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + patience;
  bool whole = false;
  do {
    if (give_up && give_up()) throw error(ErrorKind::cancelled, "stopped before the nodes were reached");
    whole = arrived_.wait_until(lock, std::min(deadline, Clock::now() + std::chrono::milliseconds(100)), all);
  } while (!whole && Clock::now() < deadline);
  std::vector<std::string> linked;
  for (const config::NodeConfig& node : cluster_.listed())
    if (linked_[node.name]) linked.push_back(node.name);
  if (whole || (enough > 0 && linked.size() >= enough)) {
    events_.clear();
    return linked;
  }
  std::string missing;
  for (const config::NodeConfig& node : cluster_.listed())
    if (!linked_[node.name])
      missing += fmt::format("{}{} at {} ({})", missing.empty() ? "" : "; ", node.name, node.address,
                             reasons_[node.name].empty() ? "no answer" : reasons_[node.name]);
  throw error(ErrorKind::network, "cannot reach {}; start it with troupe node --cluster FILE --name NAME",
              missing);
}

bool ClusterClient::send(const std::string& node, const wire::Envelope& message) {
  return links_->send(node, message) == comm::Sent::ok;
}

void ClusterClient::send_all(const wire::Envelope& message) {
  std::vector<std::string> linked;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [node, up] : linked_)
      if (up) linked.push_back(node);
  }
  for (const std::string& node : linked) send(node, message);
}

std::optional<ClusterEvent> ClusterClient::next(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  if (!arrived_.wait_for(lock, patience, [&] { return !events_.empty(); })) return std::nullopt;
  ClusterEvent event = std::move(events_.front());
  events_.pop_front();
  return event;
}

}  // namespace troupe::actors
