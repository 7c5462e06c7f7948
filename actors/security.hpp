// What a cluster file says about trust and numerics, in the terms of comm/ and kernels/.
#pragma once

#include <string>

#include "actors/config/cluster.hpp"
#include "comm/security.hpp"
#include "kernels/cpu/backend.hpp"

namespace troupe::actors {

// The files of `certificate` (a node's name) in the cluster's certificates folder; nothing without one.
comm::Security security_of(const config::ClusterConfig& cluster, const std::string& certificate);
// A client may use any certificate of the authority: the first node's whose key is in the folder, else
// "client".
comm::Security client_security(const config::ClusterConfig& cluster);

kernels::IsaLevel level_of(const config::ClusterConfig& cluster);

}  // namespace troupe::actors
