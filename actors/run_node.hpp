// A node as a process: reads the cluster file, listens, runs the actors, and ends on a signal or with its
// job.
#pragma once

#include <string>

namespace troupe::actors {

struct NodeOptions {
  std::string cluster_file;
  std::string name;
  bool one_job = false;  // of a local cluster: end with the first job, or when its client goes away before it
  int announce_fd = -1;  // writes "HOST:PORT HOST:PORT\n" here: where it listens for links and for bulk
  bool drill = false;    // SIGUSR2 makes its clock jump; it says where its state is in memory
};

// Returns the exit code. Throws Error for what is wrong before anything runs.
int run_node(const NodeOptions& options);

}  // namespace troupe::actors
