#include "actors/drill/network.hpp"

#include <algorithm>

namespace troupe::drill {

Network::Network(const config::ClusterConfig& cluster, uint64_t seed) : cluster_(cluster) {
  const auto proxy = [&](const std::string& target) {
    comm::FaultProxyOptions options;
    options.target = target;
    options.seed = ++seed;
    return std::make_unique<comm::FaultProxy>(options);
  };
  for (const config::NodeConfig& from : cluster_.nodes)
    for (const config::NodeConfig& to : cluster_.nodes) {
      if (from.name == to.name) continue;
      links_[{from.name, to.name}] = proxy(to.address);
      bulk_[{from.name, to.name}] = proxy(to.bulk_address);
    }
}

config::ClusterConfig Network::seen_by(const std::string& node) const {
  config::ClusterConfig seen = cluster_;
  for (config::NodeConfig& other : seen.nodes) {
    if (other.name == node) continue;
    other.address = links_.at({node, other.name})->address();
    other.bulk_address = bulk_.at({node, other.name})->address();
  }
  return seen;
}

void Network::afflict(const std::string& node, const comm::Faults& faults) {
  afflicted_[node] = faults;
  for (const auto& [pair, link] : links_)
    if (pair.first == node || pair.second == node) apply(pair);
}

void Network::heal(const std::string& node) {
  afflicted_.erase(node);
  for (const auto& [pair, link] : links_)
    if (pair.first == node || pair.second == node) apply(pair);
}

// Of two faults at once the worse.
void Network::apply(const Pair& pair) {
  comm::Faults both;
  for (const std::string& node : {pair.first, pair.second}) {
    const auto found = afflicted_.find(node);
    if (found == afflicted_.end()) continue;
    both.cut = both.cut || found->second.cut;
    both.delay_ms = std::max(both.delay_ms, found->second.delay_ms);
    both.loss = std::max(both.loss, found->second.loss);
    both.corruption = std::max(both.corruption, found->second.corruption);
  }
  for (auto* proxies : {&links_, &bulk_}) {
    comm::FaultProxy& proxy = *proxies->at(pair);
    if (both.cut || both.delay_ms > 0 || both.loss > 0 || both.corruption > 0)
      proxy.set(comm::Direction::both, both);
    else
      proxy.heal();
  }
}

uint64_t Network::pieces_corrupted() const {
  uint64_t count = 0;
  for (const auto* proxies : {&links_, &bulk_})
    for (const auto& [pair, proxy] : *proxies) {
      const comm::FaultStats stats = proxy->stats();
      count += stats.to_target.pieces_corrupted + stats.to_dialler.pieces_corrupted;
    }
  return count;
}

}  // namespace troupe::drill
