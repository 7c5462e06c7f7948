// What every role of a node knows about the job it takes part in, and the connections of the process it runs
// in. Immutable once the job has begun, but for who leads; shared by all actors of the job.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "actors/config/cluster.hpp"
#include "actors/config/device.hpp"
#include "actors/config/job.hpp"
#include "comm/bulk.hpp"
#include "comm/link.hpp"
#include "kernels/cpu/backend.hpp"
#include "scheduler/protocol.hpp"

namespace troupe::actors {

// What a process has whatever job it runs.
struct NodeServices {
  config::ClusterConfig cluster;
  std::string node;
  scheduler::Rank rank = 0;
  std::string incarnation;  // 16 bytes
  std::shared_ptr<comm::LinkHub> links;
  std::shared_ptr<comm::BulkListener> bulk;
  std::shared_ptr<SSL_CTX> tls_client;  // empty: plain connections
  std::string host_id;
  kernels::IsaLevel level = kernels::IsaLevel::v2;
  config::Devices devices;
  std::string data_folder, out_folder;  // of this machine; empty: as the job's order says
  bool drill = false;                   // says where its state is in memory, so that a drill can change it
};

// Which slots the steps of a job have.
inline scheduler::SlotPlan slot_plan(const config::JobConfig& job) {
  return {uint32_t(job.slots), uint32_t(job.evaluation_every > 0 ? job.evaluation_slots : 0),
          job.evaluation_every, job.steps};
}

struct JobContext {
  std::shared_ptr<const NodeServices> services;
  config::ClusterConfig cluster;  // with the addresses that the nodes really have
  config::JobConfig job;
  std::string job_text;  // canonical
  std::string job_id;    // SHA-256 of it, 32 bytes
  std::string data_folder;
  std::string out_folder;
  bool resume = false;
  int64_t stop_at = 0;  // after so many steps the job is stopped; 0: it is not
  uint32_t workers = 1;
  comm::Transport transport = comm::Transport::automatic;
  std::vector<scheduler::Rank> awaited;  // who is to be there when it begins
  // Who reports and saves for all members of this node's newest view: its leader, or the first member while
  // the leader catches up. -1 before the first view; set by membership alone.
  std::shared_ptr<std::atomic<int64_t>> speaker = std::make_shared<std::atomic<int64_t>>(-1);

  scheduler::Rank rank() const { return services->rank; }
  const std::string& node() const { return services->node; }
  bool speaks() const { return *speaker == int64_t(rank()); }
  bool elastic() const { return job.sum == config::SumKind::exact; }  // a float sum depends on who adds
  const std::string& name_of(scheduler::Rank rank) const { return cluster.nodes.at(rank).name; }
  scheduler::SlotPlan plan() const { return slot_plan(job); }
};
using JobContextPtr = std::shared_ptr<const JobContext>;

}  // namespace troupe::actors
