// Which node of which cluster a process is: as the cluster file says, or as a node of the cluster says that
// it asks.
#pragma once

#include <optional>
#include <string>

#include "actors/config/cluster.hpp"
#include "actors/node/run_node.hpp"

namespace troupe::actors {

struct Place {
  config::ClusterConfig cluster;  // where this node has the address that it is to listen on
  std::string node;
  struct Asked {
    std::string node, address;
  };
  std::optional<Asked> asked;  // with `join`: who answered there
};

// Blocks, with `join`, for at most some seconds. Throws Error(usage) for a name that the cluster does not
// have or a cluster without a free place, Error(network) when the node to ask cannot be reached, and what
// LinkHub throws.
Place find_place(const NodeOptions& options);

}  // namespace troupe::actors
