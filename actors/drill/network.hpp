// The network of a drill: between any two nodes of a local cluster a proxy for links and one for bulk
// connections, each way that somebody dials, so that what passes between them can be delayed, damaged or cut.
// One thread at a time.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "actors/config/cluster.hpp"
#include "comm/fault_proxy.hpp"

namespace troupe::drill {

class Network {
 public:
  // Of nodes that listen where `cluster` says. Throws what FaultProxy throws.
  Network(const config::ClusterConfig& cluster, uint64_t seed);

  // The cluster as `node` is to see it: its own addresses, and proxies for all others.
  config::ClusterConfig seen_by(const std::string& node) const;

  // What passes between `node` and all others, until heal(). Several nodes may be afflicted at once.
  void afflict(const std::string& node, const comm::Faults& faults);
  void heal(const std::string& node);
  uint64_t pieces_corrupted() const;

 private:
  using Pair = std::pair<std::string, std::string>;  // who dials, whom
  void apply(const Pair& pair);

  config::ClusterConfig cluster_;
  std::map<Pair, std::unique_ptr<comm::FaultProxy>> links_, bulk_;
  std::map<std::string, comm::Faults> afflicted_;
};

}  // namespace troupe::drill
