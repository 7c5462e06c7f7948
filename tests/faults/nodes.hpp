// Nodes that run by themselves, and the cluster files that name them.
#pragma once

#include <string>
#include <vector>

#include "tests/support/process.hpp"

namespace troupe::test {

inline constexpr char kAnyPort[] = "127.0.0.1:0";

// Of nodes with one thread each. `more` goes into the [cluster] table, and may begin others.
struct NodeAddress {
  std::string name, address;
};
std::string cluster_text(const std::vector<NodeAddress>& nodes, const std::string& more = "");
// Of alpha and beta.
std::string cluster_text(const std::string& alpha, const std::string& beta, const std::string& more = "");

// `troupe node` with these words behind it.
std::vector<std::string> node_command(std::vector<std::string> words);

// Such a process; it listens when the constructor returns.
struct Node {
  // One of alpha and beta, on a port of the system's choice; `words` follow the others.
  Node(const TemporaryFolder& folder, const std::string& name, const std::string& more = "",
       const std::vector<std::string>& words = {});
  // What `command` starts.
  explicit Node(std::vector<std::string> command);
  Process process;
  std::string name, address;
};

// The cluster file of clients; returns its path.
std::string cluster_file(const TemporaryFolder& folder, const Node& alpha, const Node& beta,
                         const std::string& more = "");

}  // namespace troupe::test
