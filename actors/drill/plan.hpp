// What a drill does to a running job: faults and when they strike. From a TOML file, or from a seed. Plain
// values; no I/O but reading the file.
//
//     [[faults]]
//     kind = "kill"        # see FaultKind
//     node = "node1"
//     at_step = 40         # when this step has been committed; or after_ms, counted from the fault before
//     lasts_ms = 500       # then it ends: the node is started again, goes on, the network is whole
//     delay_ms = 50        # of a delay: how late everything comes
#pragma once

#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::drill {

enum class FaultKind : uint8_t {
  kill = 1,    // SIGKILL; started again when it ends
  terminate,   // SIGTERM, so the node leaves; started again when it ends
  stop,        // SIGSTOP; SIGCONT when it ends
  partition,   // this node and the others cannot reach each other
  delay,       // what it sends and gets is late
  loss,        // one piece in ten that it sends and gets is lost and sent again
  corrupt,     // one piece in twenty that it sends and gets arrives with a flipped bit
  flip,        // one bit of its state in memory changes
  disk_full,   // none of its files can grow
  clock_jump,  // its clock jumps 20 s ahead
};
std::string_view name_of(FaultKind kind);
const std::vector<FaultKind>& all_kinds();
bool is_of_the_network(FaultKind kind);
bool lasts(FaultKind kind);  // else it is over at once
// Throws Error(usage) that lists the kinds.
FaultKind kind_of(std::string_view name);

struct Fault {
  FaultKind kind = FaultKind::kill;
  std::string node;
  int64_t at_step = -1;
  int64_t after_ms = 0;
  int64_t lasts_ms = 500;
  double delay_ms = 50;  // of a delay
};

struct Plan {
  std::vector<Fault> faults;
  bool needs_proxies() const;
};

// Throws Error(usage) naming file, line and key.
Plan read_plan(const std::string& path, const std::set<std::string>& nodes);

// `faults` of them, of the kinds given, each on a random node a short while after the one before.
Plan random_plan(uint64_t seed, size_t faults, const std::vector<FaultKind>& kinds,
                 const std::vector<std::string>& nodes);

}  // namespace troupe::drill
