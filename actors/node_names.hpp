// The names of a cluster's nodes in the order of their ranks, for people.
#pragma once

#include <ranges>
#include <string>

#include <fmt/format.h>

#include "actors/config/cluster.hpp"

namespace troupe::actors {

inline std::string node_names(const config::ClusterConfig& cluster) {
  return fmt::format("{}", fmt::join(cluster.nodes | std::views::transform(&config::NodeConfig::name), ", "));
}

}  // namespace troupe::actors
