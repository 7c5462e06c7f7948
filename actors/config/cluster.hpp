// What a cluster is: its nodes, where they listen, how they trust one another. Read from a TOML file; every value has
// a default that works on one machine. A plain value.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::config {

enum class Transport : uint8_t { automatic = 1, tcp, shm };

struct NodeConfig {
  std::string name;                       // unique; the rank is the place in the file
  std::string address = "127.0.0.1:0";    // control links: host:port, 0 lets the system choose
  std::string bulk_address;               // gradients; empty: the host of `address`, any port
  int64_t threads = 0;                    // workers; 0: the machine's cores; on GPUs one each
  std::string device = "cpu";             // what it trains on: device.hpp
  bool guest = false;                     // not in the file: a place for whoever joins; its address is not known
};

struct ClusterConfig {
  std::string name = "troupe";
  std::vector<NodeConfig> nodes;          // those of the file, then guest-1, guest-2, ...
  int64_t guests = 0;                     // how many more nodes may join with `troupe node --join`
  int64_t heartbeat_interval_ms = 300;
  int64_t patience_ms = 3000;             // silence after which a node is taken for lost
  bool quorum = false;                    // of two halves that cannot reach each other only the larger goes on
  Transport transport = Transport::automatic;
  std::string instruction_set = "auto";   // "v2", "v3", "v4": every node computes at this level; auto: the best of this machine
  std::string certificates;               // folder made by `troupe certs`; empty: no TLS
  bool insecure = false;                  // allow addresses beyond loopback without TLS

  // Of two nodes one dials: the guest, whose address the other cannot know, or else the lower rank.
  bool dials(size_t from, size_t to) const {
    return nodes[from].guest == nodes[to].guest ? from < to : nodes[from].guest;
  }
  const NodeConfig* find(std::string_view node) const;
  std::span<const NodeConfig> listed() const { return {nodes.data(), nodes.size() - size_t(guests)}; }
};

// For a client and a node that have lost one another, neither being dead, to meet again.
inline std::chrono::milliseconds client_patience(const ClusterConfig& cluster) {
  return std::chrono::milliseconds(cluster.patience_ms) + std::chrono::seconds(1);
}

// Throws Error(usage) naming file, line and key, or Error(file).
ClusterConfig read_cluster_file(const std::string& path);
ClusterConfig parse_cluster(std::string_view file, std::string_view text);
// The same as TOML, for files that the program writes itself.
std::string to_toml(const ClusterConfig& cluster);
// N nodes on this machine on ports that the system chooses, each on the next of split_devices(devices) in turn; none: on
// the CPU. Throws Error(usage) for devices of another name.
ClusterConfig local_cluster(int64_t nodes, int64_t threads, const std::vector<std::string>& devices = {});

}  // namespace troupe::config
