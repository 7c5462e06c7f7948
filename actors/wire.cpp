#include "actors/wire.hpp"

#include <chrono>
#include <filesystem>

#include "actors/wire_values.hpp"
#include "comm/messages.hpp"
#include "data/clean.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::actors {

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

std::string wire_text(std::string text) {
  if (text.size() > wire::kTextBytesMax) {
    size_t end = wire::kTextBytesMax;
    while (end > 0 && (uint8_t(text[end]) & 0xc0) == 0x80) --end;  // within a character
    text.resize(end);
  }
  for (size_t at; (at = data::find_invalid_utf8(text)) != std::string::npos;) text[at] = '?';
  return text;
}

void check_path(const char* option, const std::string& path) {
  if (!path.empty() && data::find_invalid_utf8(std::filesystem::absolute(path).string()) != std::string::npos)
    throw error(ErrorKind::usage,
                "{} {} is not UTF-8, as messages between nodes must be; name a folder that is", option,
                wire_text(path));
}

EnvelopePtr to_wire(const JobContext& context, const scheduler::Claim& claim) {
  wire::Envelope message = envelope(context, claim.fence);
  wire::Claim& out = *message.mutable_claim();
  out.set_sequence(claim.sequence);
  put(claim.done, *out.mutable_done());
  out.set_wanted(claim.wanted);
  out.set_workers(claim.workers);
  out.set_digest(claim.digest);
  out.set_slot_seconds(claim.slot_seconds);
  out.set_sealed(claim.sealed);
  return share(std::move(message));
}

scheduler::Claim claim_of(const wire::Envelope& message) {
  const wire::Claim& in = message.claim();
  return {fence_of(message), in.sequence(), get(in.done()),    in.wanted(),
          in.workers(),      in.digest(),   in.slot_seconds(), in.sealed()};
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

EnvelopePtr introduction(const JobContext& context, const scheduler::Member& self,
                         const std::string& fingerprint, const std::string& fingerprint_text, bool reply) {
  wire::Envelope message = envelope(context);
  wire::Introduction& out = *message.mutable_introduction();
  put(self, *out.mutable_member());
  out.set_fingerprint(fingerprint);
  out.set_fingerprint_text(fingerprint_text);
  out.set_reply(reply);
  return share(std::move(message));
}

EnvelopePtr guest_address(const JobContext& context, const scheduler::Member& guest) {
  wire::Envelope message = envelope(context);
  message.mutable_guest_address()->set_rank(guest.rank);
  message.mutable_guest_address()->set_address(guest.address);
  return share(std::move(message));
}

EnvelopePtr notice(const JobContext& context, const std::string& what) {
  wire::Envelope message = envelope(context);
  message.mutable_event()->set_kind(wire::Event::NOTICE);
  message.mutable_event()->set_unix_us(std::chrono::system_clock::now().time_since_epoch() /
                                       std::chrono::microseconds(1));
  message.mutable_event()->set_why(wire_text(what));
  return share(std::move(message));
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
