// What the leader and its members say to one another, as plain values, and what both know of a job
// beforehand: how many slots each step has. Standard library only. comm/messages.proto is the wire form of
// the same words.
#pragma once

#include <cstdint>
#include <map>
#include <string>

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
  uint32_t flags = 0;
  uint32_t wanted = 0;      // slots it could take on now
  uint32_t workers = 1;     // slots it runs at once
  std::string digest;       // of x(step)
  double slot_seconds = 0;  // how long one slot takes one worker, smoothed; 0: not known yet
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
  bool operator==(const Seal&) const = default;
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

}  // namespace troupe::scheduler
