#include "actors/wire.hpp"

#include "kernels/base/hash.hpp"

namespace troupe::actors {

using scheduler::SlotSet;

namespace {

void put(const SlotSet& set, wire::SlotSet& out) {
  for (uint64_t word : set.words()) out.add_words(word);
}

SlotSet get(const wire::SlotSet& in) {
  return SlotSet::from_words({in.words().begin(), in.words().end()});
}

scheduler::Fence fence_of(const wire::Envelope& message) {
  const wire::Fence& fence = message.fence();
  return {{fence.ballot().number(), fence.ballot().leader()}, fence.step()};
}

void put(const scheduler::Member& member, wire::Member& out) {
  out.set_rank(member.rank);
  out.set_name(member.name);
  out.set_bulk_address(member.bulk_address);
  out.set_incarnation(member.incarnation);
  out.set_host_id(member.host_id);
}

scheduler::Member get(const wire::Member& in) {
  return {in.rank(), in.name(), in.bulk_address(), in.incarnation(), in.host_id()};
}

}  // namespace

wire::Envelope envelope(const JobContext& context, const scheduler::Fence& fence) {
  wire::Envelope message;
  wire::Fence& out = *message.mutable_fence();
  out.set_job(context.job_id);
  out.set_incarnation(context.services->incarnation);
  out.mutable_ballot()->set_number(fence.ballot.number);
  out.mutable_ballot()->set_leader(fence.ballot.leader);
  out.set_step(fence.step);
  return message;
}

EnvelopePtr share(wire::Envelope&& message) {
  return std::make_shared<const wire::Envelope>(std::move(message));
}

EnvelopePtr to_wire(const JobContext& context, const scheduler::Claim& claim) {
  wire::Envelope message = envelope(context, claim.fence);
  wire::Claim& out = *message.mutable_claim();
  out.set_sequence(claim.sequence);
  put(claim.done, *out.mutable_done());
  out.set_flags(claim.flags);
  out.set_wanted(claim.wanted);
  out.set_workers(claim.workers);
  out.set_digest(claim.digest);
  out.set_slot_seconds(claim.slot_seconds);
  return share(std::move(message));
}

scheduler::Claim claim_of(const wire::Envelope& message) {
  const wire::Claim& in = message.claim();
  return {fence_of(message), in.sequence(), get(in.done()), in.flags(),
          in.wanted(),       in.workers(),  in.digest(),    in.slot_seconds()};
}

EnvelopePtr to_wire(const JobContext& context, const scheduler::Grant& grant) {
  wire::Envelope message = envelope(context, grant.fence);
  message.mutable_grant()->set_sequence(grant.sequence);
  put(grant.slots, *message.mutable_grant()->mutable_slots());
  return share(std::move(message));
}

scheduler::Grant grant_of(const wire::Envelope& message) {
  return {fence_of(message), message.grant().sequence(), get(message.grant().slots())};
}

EnvelopePtr to_wire(const JobContext& context, const scheduler::Seal& seal) {
  wire::Envelope message = envelope(context, seal.fence);
  for (const auto& [rank, slots] : seal.contributions) {
    wire::Contribution& out = *message.mutable_seal()->add_contributions();
    out.set_member(rank);
    put(slots, *out.mutable_slots());
  }
  message.mutable_seal();
  if (seal.end_step) message.mutable_seal()->set_end_step(*seal.end_step);
  return share(std::move(message));
}

scheduler::Seal seal_of(const wire::Envelope& message) {
  scheduler::Seal seal{fence_of(message), {}, std::nullopt};
  for (const wire::Contribution& in : message.seal().contributions())
    seal.contributions[in.member()] = get(in.slots());
  if (message.seal().has_end_step()) seal.end_step = message.seal().end_step();
  return seal;
}

EnvelopePtr to_wire(const JobContext& context, const scheduler::JoinRequest& join) {
  wire::Envelope message = envelope(context);
  wire::Join& out = *message.mutable_join();
  put(join.member, *out.mutable_member());
  out.set_fingerprint(join.fingerprint);
  out.set_fingerprint_text(join.fingerprint_text);
  out.set_step(join.step);
  out.set_digest(join.digest);
  return share(std::move(message));
}

scheduler::JoinRequest join_of(const wire::Envelope& message) {
  const wire::Join& in = message.join();
  return {get(in.member()), in.fingerprint(), in.fingerprint_text(), in.step(), in.digest()};
}

EnvelopePtr to_wire(const JobContext& context, const scheduler::ViewFormed& formed) {
  wire::Envelope message = envelope(context, {formed.view.ballot, formed.view.step});
  wire::View& out = *message.mutable_view();
  out.mutable_ballot()->set_number(formed.view.ballot.number);
  out.mutable_ballot()->set_leader(formed.view.ballot.leader);
  for (const scheduler::Member& member : formed.view.members) put(member, *out.add_members());
  for (const auto& [rank, slots] : formed.view.kept) {
    wire::Contribution& kept = *out.add_kept();
    kept.set_member(rank);
    put(slots, *kept.mutable_slots());
  }
  out.set_total_source(formed.view.total_source ? *formed.view.total_source + 1 : 0);
  out.set_bulk_key(formed.view.bulk_key);
  if (formed.view.end_step) out.set_end_step(*formed.view.end_step);
  for (scheduler::Rank rank : formed.lacking) out.add_lacking(rank);
  return share(std::move(message));
}

scheduler::ViewFormed view_of(const wire::Envelope& message) {
  const wire::View& in = message.view();
  scheduler::ViewFormed formed;
  formed.view.step = message.fence().step();
  formed.view.ballot = {in.ballot().number(), in.ballot().leader()};
  for (const wire::Member& member : in.members()) formed.view.members.push_back(get(member));
  for (const wire::Contribution& kept : in.kept()) formed.view.kept[kept.member()] = get(kept.slots());
  if (in.total_source() > 0) formed.view.total_source = in.total_source() - 1;
  formed.view.bulk_key = in.bulk_key();
  if (in.has_end_step()) formed.view.end_step = in.end_step();
  formed.lacking = {in.lacking().begin(), in.lacking().end()};
  return formed;
}

bool same_job(const JobContext& context, const wire::Envelope& message) {
  return message.fence().job() == context.job_id;
}

ErrorKind to_error_kind(scheduler::Failure::Kind kind) {
  switch (kind) {
    case scheduler::Failure::Kind::protocol:
      return ErrorKind::protocol;
    case scheduler::Failure::Kind::peer_lost:
      return ErrorKind::peer_lost;
    case scheduler::Failure::Kind::numeric:
      return ErrorKind::numeric;
    case scheduler::Failure::Kind::timeout:
      return ErrorKind::timeout;
    case scheduler::Failure::Kind::version:
      return ErrorKind::version;
  }
  return ErrorKind::protocol;
}

}  // namespace troupe::actors
