// Two nodes that run by themselves, alpha and beta, and the cluster file that names them.
#pragma once

#include <string>
#include <vector>

#include "tests/support/process.hpp"

namespace troupe::test {

inline constexpr char kAnyPort[] = "127.0.0.1:0";

// `more` goes into the [cluster] table.
std::string cluster_text(const std::string& alpha, const std::string& beta, const std::string& more = "");

// `troupe node`, on a port of the system's choice; it listens when the constructor returns.
struct Node {
  Node(const TemporaryFolder& folder, const std::string& name, const std::string& more = "",
       std::vector<std::string> words = {});
  Process process;
  std::string address;
};

// Any node, by the words behind `troupe node`; it listens when the constructor returns.
struct FreeNode {
  explicit FreeNode(std::vector<std::string> words);
  Process process;
  std::string name, address;
};

// The cluster file of clients; returns its path.
std::string cluster_file(const TemporaryFolder& folder, const Node& alpha, const Node& beta,
                         const std::string& more = "");

}  // namespace troupe::test
