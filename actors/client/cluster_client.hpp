// A client's view of a cluster: links to all its nodes, and what comes over them as a queue of events. Used
// by one thread. Of progress reports the queue holds so many at most; what else nodes say is few.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "actors/config/cluster.hpp"
#include "comm/link.hpp"
#include "comm/messages.pb.h"

namespace troupe::actors {

struct ClusterEvent {
  enum class Kind : uint8_t { up = 1, down, message };
  Kind kind = Kind::message;
  std::string node;
  std::string why;          // of a down
  wire::Envelope envelope;  // of a message
};

// A random number, by which nodes tell a client's order from others of the same job.
uint64_t new_order();

class ClusterClient {
 public:
  // Dials every node of the cluster file. Addresses must be real ones (no port 0). Throws what LinkHub
  // throws.
  explicit ClusterClient(const config::ClusterConfig& cluster);
  ~ClusterClient();

  // Until all are linked, or the patience is over and at least `enough` are (0: all). Returns who is. Throws
  // Error(network) that names the nodes that cannot be reached, and why; Error(cancelled) when `give_up`,
  // which is asked now and then, says so.
  std::vector<std::string> wait_for_links(std::chrono::milliseconds patience, size_t enough = 0,
                                          const std::function<bool()>& give_up = {});
  bool send(const std::string& node, const wire::Envelope& message);
  void send_all(const wire::Envelope& message);                    // to all that are linked
  void dial(const std::string& node, const std::string& address);  // a guest, once it is known where it is
  std::optional<ClusterEvent> next(std::chrono::milliseconds patience);
  void close();

  const config::ClusterConfig& cluster() const { return cluster_; }

 private:
  void push(ClusterEvent event);

  config::ClusterConfig cluster_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<ClusterEvent> events_;
  std::map<std::string, bool> linked_;
  std::map<std::string, std::string> reasons_;  // why a node cannot be reached
  std::unique_ptr<comm::LinkHub> links_;
};

}  // namespace troupe::actors
