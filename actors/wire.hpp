// Between the wire messages and the plain values of scheduler/. Decoding trusts only the bounds that comm/
// checked.
#pragma once

#include "actors/job_context.hpp"
#include "actors/messages.hpp"
#include "comm/messages.pb.h"
#include "scheduler/membership.hpp"
#include "scheduler/protocol.hpp"

namespace troupe::actors {

// An envelope fenced by the job, with ballot and step where they are known.
wire::Envelope envelope(const JobContext& context, const scheduler::Fence& fence = {});
EnvelopePtr share(wire::Envelope&& message);
// A reason as a message may carry it: what is not UTF-8 becomes '?', and what is too long is cut.
std::string wire_text(std::string text);
// Throws Error(usage) that names the option unless messages can carry the path.
void check_path(const char* option, const std::string& path);

EnvelopePtr to_wire(const JobContext& context, const scheduler::Claim& claim);
EnvelopePtr to_wire(const JobContext& context, const scheduler::Grant& grant);
EnvelopePtr to_wire(const JobContext& context, const scheduler::Seal& seal);
// `fingerprint` is the SHA-256 of the text.
EnvelopePtr introduction(const JobContext& context, const scheduler::Member& self,
                         const std::string& fingerprint, const std::string& fingerprint_text, bool reply);
EnvelopePtr guest_address(const JobContext& context, const scheduler::Member& guest);
// For clients: what a user should know though the job goes on.
EnvelopePtr notice(const JobContext& context, const std::string& what);

// REQUIRE a body of that kind.
scheduler::Claim claim_of(const wire::Envelope& message);
scheduler::Grant grant_of(const wire::Envelope& message);
scheduler::Seal seal_of(const wire::Envelope& message);

// What nodes say about ballots and views, one envelope each. Empty for an envelope of another kind.
EnvelopePtr to_wire(const JobContext& context, const scheduler::MembershipMessage& message);
std::optional<scheduler::MembershipMessage> membership_message_of(const wire::Envelope& message);

bool same_job(const JobContext& context, const wire::Envelope& message);
ErrorKind to_error_kind(scheduler::Failure::Kind kind);

}  // namespace troupe::actors
