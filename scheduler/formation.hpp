// How a cluster comes together for a job: every node of the cluster file joins with the same numerics, and
// the leader announces the first view. Fixed membership: a node that is missing, different or lost ends the
// job by its name. A pure state machine: events and a clock in, actions out. Not thread-safe; owned by one
// actor.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "scheduler/protocol.hpp"

namespace troupe::scheduler {

struct JoinRequest {
  Member member;
  std::string fingerprint;       // of the numerics, the job and the data: all must agree
  std::string fingerprint_text;  // what it was made of, one "key=value" a line; for the error message
  int64_t step = -1;             // of its newest state
  std::string digest;            // of that state
};

struct ViewFormed {
  View view;  // begins at the step of the leader's state
  std::vector<Rank> lacking;  // members with another state: it must be sent to them before the first step
};
using FormationAction = std::variant<ViewFormed, Failure>;

// A node that is suspected, before or after the view, is lost, and the job cannot go on without it.
Failure lost_node(const std::string& name, const std::string& why);

class Formation {
 public:
  struct Options {
    Rank leader = 0;
    uint64_t ballot_number = 1;
    std::vector<std::pair<Rank, std::string>> expected;  // rank and name of every node, in ring order
    Microseconds patience_us = 0;                        // for all to join
    std::string bulk_key;                                // 32 random bytes
  };
  Formation(Options options, Microseconds now_us);

  // A repeated Join of the same incarnation changes nothing; one of another incarnation replaces the first.
  std::optional<FormationAction> on_join(const JoinRequest& join);
  std::optional<FormationAction> on_tick(Microseconds now_us);
  bool formed() const { return formed_; }
  std::vector<std::string> missing() const;

 private:
  std::string name(Rank rank) const;
  std::optional<Failure> compare() const;
  ViewFormed form();

  Options options_;
  Microseconds began_at_us_ = 0;
  std::map<Rank, JoinRequest> joined_;
  bool formed_ = false;
};

}  // namespace troupe::scheduler
