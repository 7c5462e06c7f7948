// What a node makes of an order for a job, and of a failure in one: plain functions of what it knows then.
#pragma once

#include <algorithm>
#include <cstdint>

#include "actors/messages.hpp"

namespace troupe::actors {

enum class JobPhase : uint8_t { idle = 1, starting, training, finishing, ending };

// --- an order ---

struct OrderSeen {
  JobPhase phase = JobPhase::idle;  // of the node
  bool by_client = true;            // else a node offers the job that it takes part in
  bool same = false;                // as the order of the job that the node has
  bool prepares = false;            // the node is busy with a client's dataset
  bool heeds_offers = true;         // it neither rests nor ends with its job
  bool may_wait = false;            // it takes another job after its own, and no order waits for that yet
};

enum class OrderFate : uint8_t {
  ignored = 1,
  begins,
  taken_over,  // a peer was faster than the client, whose job it is from now on
  followed,    // the client looks on
  waits,       // clients hear of a job's end a little before its roles are gone
  refused
};

inline OrderFate fate_of(const OrderSeen& order) {
  const bool free = order.phase == JobPhase::idle && !order.prepares;
  if (!order.by_client) return free && order.heeds_offers ? OrderFate::begins : OrderFate::ignored;
  if (free) return OrderFate::begins;
  switch (order.phase) {
    case JobPhase::starting:
      return order.same ? OrderFate::taken_over : OrderFate::refused;
    case JobPhase::training:
    case JobPhase::finishing:
      return order.same ? OrderFate::followed : OrderFate::refused;
    case JobPhase::ending:
      return order.may_wait ? OrderFate::waits : OrderFate::refused;
    case JobPhase::idle:
      break;
  }
  return OrderFate::refused;
}

// Of one job, by the numbers of its orders: whether a peer knows it by none that this node knows it by. Who
// has no number was ordered by something that gives none.
template <class Theirs, class Ours>
bool are_other_orders(const Theirs& theirs, const Ours& ours) {
  const auto ours_too = [&](uint64_t one) { return std::find(ours.begin(), ours.end(), one) != ours.end(); };
  return !theirs.empty() && !ours.empty() && std::none_of(theirs.begin(), theirs.end(), ours_too);
}

// --- a failure ---

struct PartOfJob {
  JobPhase phase = JobPhase::training;
  bool joining = false;        // a job that others have begun, or will without this node's say
  bool in_view = false;        // of that job, now or before
  bool elastic = true;         // the others may go on without this node
  bool others = false;         // members of its view can be reached
  bool saving = false;         // finishing: the last state is waited for or written
  bool awaits_suspect = true;  // finishing: the suspect has not confirmed the final weights yet
};

enum class FailureEnds : uint8_t {
  nothing = 1,
  its_state,  // what is in its memory is not to be trusted: it takes part anew, with a peer's
  its_part,   // its disk, its memory: the others go on
  the_job
};

// What is wrong with the job, not with one node.
inline bool is_of_the_job(ErrorKind kind) {
  return kind == ErrorKind::numeric || kind == ErrorKind::protocol || kind == ErrorKind::usage ||
         kind == ErrorKind::version;
}

// REQUIRES a part: neither idle nor ending.
inline FailureEnds what_ends(const JobFailed& failure, const PartOfJob& part) {
  if (part.phase == JobPhase::finishing && failure.suspect >= 0) {
    // While the last state is waited for, anyone may go, but no other view mends that a peer refuses this
    // node. After that, who has confirmed the final weights may go before the others have.
    const bool refused = failure.kind == ErrorKind::usage || failure.kind == ErrorKind::security;
    if (part.saving ? !refused : !part.awaits_suspect) return FailureEnds::nothing;
  }
  const bool trains = part.phase == JobPhase::training;
  const bool others_go_on = part.joining || (trains && part.elastic && part.others);
  if (failure.of_all || !others_go_on) return FailureEnds::the_job;
  if (trains && failure.kind == ErrorKind::corrupt) return FailureEnds::its_state;
  const bool has_a_say = !part.joining || part.in_view;
  return has_a_say && is_of_the_job(failure.kind) ? FailureEnds::the_job : FailureEnds::its_part;
}

}  // namespace troupe::actors
