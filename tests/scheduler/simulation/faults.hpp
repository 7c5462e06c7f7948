// What goes wrong in a simulated run, and when: after so many events, so that a fault can fall between any
// two of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::simulation {

enum class FaultKind : uint8_t {
  kill = 0,   // the process is gone at once; it comes back empty after a while
  stop,       // SIGSTOP, SIGCONT after a while
  leave,      // SIGTERM; comes back after a while
  cut_pair,   // one pair of nodes cannot talk
  partition,  // two groups cannot talk
  burst,      // for a while every third message is lost, copied or late
  slow,       // a node computes ten times slower for a while
  halt,       // somebody asks for the job to stop, and asks again until it has
  count
};
inline const char* name_of(FaultKind kind) {
  static constexpr const char* kNames[] = {"kill",      "stop",  "leave", "cut pair",
                                           "partition", "burst", "slow",  "halt"};
  return kNames[size_t(kind)];
}

struct Fault {
  FaultKind kind = FaultKind::kill;
  uint64_t at_event = 0;
  uint32_t node = 0;
  uint32_t other = 0;  // of a pair; a bit set of one side of a partition
  int64_t lasts_us = 0;
  std::string text() const {
    return "after event " + std::to_string(at_event) + ": " + name_of(kind) + " node " +
           std::to_string(node) +
           (kind == FaultKind::cut_pair || kind == FaultKind::partition ? " from " + std::to_string(other)
                                                                        : "") +
           " for " + std::to_string(lasts_us / 1000) + " ms";
  }
};

}  // namespace troupe::simulation
