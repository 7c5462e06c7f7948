// What the leader and its members say to one another, as plain values, and what both know of a job
// beforehand: how many slots each step has. Standard library only. comm/messages.proto is the wire form of
// the same words.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/views.hpp"

namespace troupe::scheduler {

using Microseconds = int64_t;  // of a steady clock that the caller injects

// Every message names the ballot and the step it belongs to; receivers drop those of another.
struct Fence {
  Ballot ballot;
  int64_t step = 0;
  bool operator==(const Fence&) const = default;
};

struct Claim {
  Fence fence;
  uint64_t sequence = 0;
  SlotSet done;
  uint32_t wanted = 0;      // slots it could take on now
  uint32_t workers = 1;     // slots it runs at once
  std::string digest;       // of x(step)
  double slot_seconds = 0;  // how long one slot takes one worker, smoothed; 0: not known yet
  bool sealed = false;      // knows the seal of this step, and has done its slots
  bool operator==(const Claim&) const = default;
};

struct Grant {
  Fence fence;
  uint64_t sequence = 0;  // of the Claim it answers
  SlotSet slots;
  bool operator==(const Grant&) const = default;
};

struct Seal {
  Fence fence;
  std::map<Rank, SlotSet> contributions;
  std::optional<int64_t> end_step;  // the job ends there: somebody asked for a stop
  bool operator==(const Seal&) const = default;
};

// --- from one view to the next ---

struct Prepare {  // the sender wants to lead this ballot
  Ballot ballot;
  bool operator==(const Prepare&) const = default;
};

// What a member holds, once it has promised a ballot. Until that ballot's View it starts no slot.
struct Inventory {
  Ballot ballot;
  Member member;
  int64_t step = 0;          // of its state
  std::string digest;        // of that state
  SlotSet folded;            // of that step, in its sum
  SlotSet half_folded;       // started: they will be in its sum, unless the sum is dropped
  bool holds_total = false;  // has R(step - 1)
  bool leaving = false;
  std::optional<int64_t> end_step;
  bool operator==(const Inventory&) const = default;
};

// A sign of life that says which ballot its sender is in, so that nodes that were apart find each other.
struct Heartbeat {
  Ballot ballot;
  int64_t step = 0;
  bool leads = false;  // the sender leads that ballot
  bool operator==(const Heartbeat&) const = default;
};

struct Join {    // from a node that is in no view
  Ballot known;  // the highest that it has promised
  Member member;
  int64_t step = 0;  // of its state
  bool operator==(const Join&) const = default;
};

// Leader to a joiner whose state is too old to be a member: take a snapshot, then every R as it is committed,
// from one of these.
struct Follow {
  Ballot ballot;
  int64_t step = 0;
  std::vector<Rank> sources;
  bool operator==(const Follow&) const = default;
};

struct Suspect {  // member to leader: the ring broke at this peer; the sender itself: it is not known at whom
  Ballot ballot;
  Rank peer = 0;
  std::string why;
  bool operator==(const Suspect&) const = default;
};

struct Leave {  // at a step's boundary: nothing that the sender computed is lost
  Ballot ballot;
  bool operator==(const Leave&) const = default;
};

// Which slots a step has: `training` slots always, and in every `evaluate_every`-th step and the last one
// `evaluation` more on held-out samples, forward only. A constant of the job.
struct SlotPlan {
  uint32_t training = 1;
  uint32_t evaluation = 0;
  int64_t evaluate_every = 0;  // 0: never
  int64_t steps = 0;           // of the job

  bool evaluates(int64_t step) const;
  uint32_t slots(int64_t step) const { return training + (evaluates(step) ? evaluation : 0); }
  bool is_evaluation(uint32_t slot) const { return slot >= training; }
};

// Why a job cannot go on. `peer` is the node to name, when there is one.
struct Failure {
  enum class Kind : uint8_t { protocol = 1, peer_lost, numeric, timeout, version };
  Kind kind = Kind::protocol;
  std::string message;
  bool operator==(const Failure&) const = default;
};

// Joins two lists of actions in order.
template <typename Actions>
void append(Actions& actions, Actions more) {
  for (auto& action : more) actions.emplace_back(std::move(action));
}

}  // namespace troupe::scheduler
