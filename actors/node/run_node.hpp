// A node as a process: reads the cluster file, listens, runs the actors, and ends on a signal or with its
// job.
#pragma once

#include <string>

namespace troupe::actors {

struct NodeOptions {
  std::string cluster_file;  // this or `join`
  std::string join;          // HOST:PORT or NAME@HOST:PORT of a node: the cluster is asked for there
  std::string name;          // with `join` it may be empty: a free guest's place
  std::string listen;        // HOST:PORT to listen on instead of what the cluster says; empty: as it says
  std::string device;        // to train on; empty: as the cluster file says
  std::string certificates;  // with `join`: the folder with this node's certificate
  std::string data;      // this machine's folder of the dataset, whatever the client says; empty: as it says
  std::string out;       // and of checkpoints, ledger and logs
  bool one_job = false;  // of a local cluster: end with the first job, or when its client goes away before it
  int announce_fd = -1;  // writes "HOST:PORT HOST:PORT\n" here: where it listens for links and for bulk
  bool drill = false;  // SIGUSR2 makes its clock jump; it says where its state is in memory; it dies with its
                       // parent
};

// Returns the exit code. Throws Error for what is wrong before anything runs.
int run_node(const NodeOptions& options);

}  // namespace troupe::actors
