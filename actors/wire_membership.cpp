#include "actors/wire.hpp"
#include "actors/wire_values.hpp"

namespace troupe::actors {

namespace {

// Each message's ballot and step travel in the fence.
void fill(const scheduler::Prepare&, wire::Envelope& out) {
  out.mutable_prepare();
}

void fill(const scheduler::Inventory& inventory, wire::Envelope& message) {
  wire::Inventory& out = *message.mutable_inventory();
  put(inventory.member, *out.mutable_member());
  put(inventory.folded, *out.mutable_folded());
  put(inventory.half_folded, *out.mutable_half_folded());
  out.set_holds_total(inventory.holds_total);
  out.set_digest(inventory.digest);
  out.set_leaving(inventory.leaving);
  if (inventory.end_step) out.set_end_step(*inventory.end_step);
}

void fill(const scheduler::View& view, wire::Envelope& out) {
  put(view, *out.mutable_view());
}

void fill(const scheduler::Heartbeat& heartbeat, wire::Envelope& out) {
  out.mutable_heartbeat()->set_leads(heartbeat.leads);
}

void fill(const scheduler::Join& join, wire::Envelope& message) {
  put(join.known, *message.mutable_join()->mutable_known());
  put(join.member, *message.mutable_join()->mutable_member());
  message.mutable_join()->set_step(join.step);
}

void fill(const scheduler::Follow& follow, wire::Envelope& message) {
  message.mutable_follow();
  for (scheduler::Rank source : follow.sources) message.mutable_follow()->add_sources(source);
}

void fill(const scheduler::Suspect& suspect, wire::Envelope& message) {
  message.mutable_suspect()->set_peer(suspect.peer);
  message.mutable_suspect()->set_why(wire_text(suspect.why));
}

void fill(const scheduler::Leave&, wire::Envelope& out) {
  out.mutable_leave();
}

template <class Message>
scheduler::Fence fence_for(const Message& message) {
  if constexpr (requires { message.known; })
    return {message.known, message.step};
  else if constexpr (requires { message.step; })
    return {message.ballot, message.step};
  else
    return {message.ballot, 0};
}

scheduler::Inventory inventory_of(const wire::Envelope& message) {
  const wire::Inventory& in = message.inventory();
  scheduler::Inventory inventory;
  inventory.ballot = fence_of(message).ballot;
  inventory.step = message.fence().step();
  inventory.member = get(in.member());
  inventory.folded = get(in.folded());
  inventory.half_folded = get(in.half_folded());
  inventory.holds_total = in.holds_total();
  inventory.digest = in.digest();
  inventory.leaving = in.leaving();
  if (in.has_end_step()) inventory.end_step = in.end_step();
  return inventory;
}

}  // namespace

void put(const scheduler::View& view, wire::View& out) {
  put(view.ballot, *out.mutable_ballot());
  for (const scheduler::Member& member : view.members) put(member, *out.add_members());
  for (const auto& [rank, slots] : view.kept) {
    wire::Contribution& kept = *out.add_kept();
    kept.set_member(rank);
    put(slots, *kept.mutable_slots());
  }
  out.set_total_source(view.total_source ? *view.total_source + 1 : 0);
  out.set_bulk_key(view.bulk_key);
  if (view.end_step) out.set_end_step(*view.end_step);
}

scheduler::View view_from(const wire::Envelope& message) {
  const wire::View& in = message.view();
  scheduler::View view;
  view.step = message.fence().step();
  view.ballot = get(in.ballot());
  for (const wire::Member& member : in.members()) view.members.push_back(get(member));
  for (const wire::Contribution& kept : in.kept()) view.kept[kept.member()] = get(kept.slots());
  if (in.total_source() > 0) view.total_source = in.total_source() - 1;
  view.bulk_key = in.bulk_key();
  if (in.has_end_step()) view.end_step = in.end_step();
  return view;
}

EnvelopePtr to_wire(const JobContext& context, const scheduler::MembershipMessage& message) {
  return std::visit(
      [&](const auto& one) {
        wire::Envelope out = envelope(context, fence_for(one));
        fill(one, out);
        return share(std::move(out));
      },
      message);
}

std::optional<scheduler::MembershipMessage> membership_message_of(const wire::Envelope& message) {
  const auto [ballot, step] = fence_of(message);
  switch (message.body_case()) {
    case wire::Envelope::kPrepare:
      return scheduler::Prepare{ballot};
    case wire::Envelope::kInventory:
      return inventory_of(message);
    case wire::Envelope::kView:
      return view_from(message);
    case wire::Envelope::kHeartbeat:
      return scheduler::Heartbeat{ballot, step, message.heartbeat().leads()};
    case wire::Envelope::kJoin:
      return scheduler::Join{get(message.join().known()), get(message.join().member()),
                             message.join().step()};
    case wire::Envelope::kFollow:
      return scheduler::Follow{
          ballot, step, {message.follow().sources().begin(), message.follow().sources().end()}};
    case wire::Envelope::kSuspect:
      return scheduler::Suspect{ballot, message.suspect().peer(), message.suspect().why()};
    case wire::Envelope::kLeave:
      return scheduler::Leave{ballot};
    default:
      return std::nullopt;
  }
}

}  // namespace troupe::actors
