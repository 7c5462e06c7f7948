// The actor that a node process is: it takes jobs from clients, spawns the roles of a job, carries messages
// between links and roles, and ends the job when it is done, when it fails, or when it is told to stop.
#pragma once

#include <functional>

#include <caf/fwd.hpp>

#include "actors/handles.hpp"
#include "actors/job_context.hpp"

namespace troupe::actors {

struct NodeSetup {
  std::shared_ptr<const NodeServices> services;
  bool one_job = false;  // end with the first job instead of waiting for another
  std::function<void(int)>
      ended;  // with the exit code: this node has nothing more to do; the first call counts
};

node_actor spawn_node(caf::actor_system& system, NodeSetup setup);

}  // namespace troupe::actors
