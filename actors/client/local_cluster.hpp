// Node processes on this machine, for `troupe train` without a cluster file: each in its own session, with
// its log in OUT/logs, at the same address when it is started again. They outlive their parent when it is
// killed (they finish the job); stop() ends those that still run.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <sys/types.h>

#include "actors/config/cluster.hpp"
#include "comm/socket.hpp"

namespace troupe::actors {

class LocalCluster {
 public:
  // Chooses the nodes' addresses, keeps them as long as it lives, and writes OUT/cluster.toml. `program` is
  // the troupe executable; empty: the one beside this. `nodes` is a config::local_cluster; `more` goes to
  // each node's command line. Throws Error(usage) when another one has OUT.
  LocalCluster(config::ClusterConfig nodes, const std::string& out_folder, std::string program = {},
               std::vector<std::string> more = {});
  ~LocalCluster();  // leaves running processes alone unless stop() was called
  LocalCluster(const LocalCluster&) = delete;
  LocalCluster& operator=(const LocalCluster&) = delete;

  // Starts the processes, waits until each listens, and writes OUT/cluster.json (name, address, pid). Throws
  // Error, of kind cancelled when `give_up` says so meanwhile; then none runs.
  void start(const std::function<bool()>& give_up = {});

  const config::ClusterConfig& config() const { return config_; }  // with the real addresses
  std::optional<size_t> find(const std::string& node) const;
  pid_t process(size_t index) const { return processes_.at(index).id; }
  bool running(size_t index);
  // From its next start on, `node` reaches the others where this says.
  void give_map(size_t index, const config::ClusterConfig& as_seen);
  // Starts a node anew that does not run any more. Throws Error, of kind cancelled when `give_up` says so
  // while it starts; then it does not run.
  void restart(size_t index, const std::function<bool()>& give_up = {});
  // Waits for all to end by themselves, then kills those that have not.
  void stop(std::chrono::milliseconds patience);
  // Where it has made OUT, removes what it has written, OUT and the folders made for it unless something else
  // is in them. REQUIRES stop().
  void undo();
  // The last line of a node's log, to explain its death.
  std::string log_tail(const std::string& node) const;
  std::string logs() const { return out_folder_ + "/logs"; }

 private:
  struct Process {
    pid_t id = -1;
    int announce = -1;
    bool ended = false;
  };
  void launch(size_t index);
  void end(size_t index);
  void wait_until_listening(size_t index, const std::function<bool()>& give_up = {});
  std::string cluster_path(size_t index) const;
  void write_json() const;
  std::string log_path(const std::string& node) const;

  std::string out_folder_, program_;
  std::filesystem::path made_;  // the uppermost folder made for OUT; empty: OUT was there
  comm::Descriptor lock_;       // OUT/logs, locked: its nodes may not have locks of their own yet
  std::vector<std::string> more_;
  std::set<size_t> have_map_;
  config::ClusterConfig config_;
  std::vector<comm::Descriptor> reserved_;  // the nodes' addresses
  std::vector<Process> processes_;
};

}  // namespace troupe::actors
