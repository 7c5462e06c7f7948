// `troupe train`: a client that starts nodes on this machine or finds those of a cluster file, gives them a
// job, and shows how it goes. The nodes are the job: killing the client does not end it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/config/job.hpp"

namespace troupe::actors {

struct TrainOptions {
  config::JobConfig job;
  std::string data;
  std::string out;
  int64_t nodes = 1;  // of a local cluster
  std::vector<std::string>
      devices;               // of its nodes, in turn, as config::split_devices takes them; none: the CPU
  std::string cluster_file;  // use the running nodes of this file instead
  int64_t min_nodes = 0;     // of that file, to begin with; 0: all
  int64_t threads = 0;       // workers a node; 0: as the cluster file says, or the cores shared out
  bool resume = false;
  int64_t stop_at = 0;   // end after so many of the job's steps; 0: all
  bool restart = false;  // nodes of a local cluster that die are started again
  bool json = false;
  std::string transport = "auto";  // "tcp", "shm"
  std::string program;             // the troupe executable for local nodes; empty: the one beside this
};

// 0 done, 130 stopped (a first Ctrl-C: after the step, with a checkpoint). Throws Error for everything else;
// the text names the node that is to blame.
int train(const TrainOptions& options);

}  // namespace troupe::actors
