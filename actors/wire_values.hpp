// The small values that several wire messages carry, there and back. Internal to wire.cpp and
// wire_membership.cpp.
#pragma once

#include <map>

#include "comm/messages.pb.h"
#include "scheduler/protocol.hpp"

namespace troupe::actors {

inline void put(const scheduler::SlotSet& set, wire::SlotSet& out) {
  for (uint64_t word : set.words()) out.add_words(word);
}
inline scheduler::SlotSet get(const wire::SlotSet& in) {
  return scheduler::SlotSet::from_words({in.words().begin(), in.words().end()});
}

inline void put(const scheduler::Ballot& ballot, wire::Ballot& out) {
  out.set_number(ballot.number);
  out.set_leader(ballot.leader);
}
inline scheduler::Ballot get(const wire::Ballot& in) {
  return {in.number(), in.leader()};
}

inline scheduler::Fence fence_of(const wire::Envelope& message) {
  return {get(message.fence().ballot()), message.fence().step()};
}

inline void put(const scheduler::Member& member, wire::Member& out) {
  out.set_rank(member.rank);
  out.set_name(member.name);
  out.set_bulk_address(member.bulk_address);
  out.set_incarnation(member.incarnation);
  out.set_host_id(member.host_id);
  out.set_address(member.address);
}
inline scheduler::Member get(const wire::Member& in) {
  return {in.rank(), in.name(), in.bulk_address(), in.incarnation(), in.host_id(), in.address()};
}

void put(const scheduler::View& view, wire::View& out);
scheduler::View view_from(const wire::Envelope& message);

}  // namespace troupe::actors
