#include "actors/wire.hpp"

#include <doctest/doctest.h>

#include "comm/messages.hpp"
#include "tests/actors/support.hpp"

using namespace troupe;
using namespace troupe::actors;

namespace {

// As it arrives on another node.
wire::Envelope travel(const EnvelopePtr& message) {
  wire::Envelope arrived;
  const auto wrong = wire::decode(wire::encode(*message), arrived);
  REQUIRE_FALSE(wrong);
  return arrived;
}

}  // namespace

TEST_CASE("claims, grants and seals arrive as they were sent") {
  const JobContextPtr context = test_context(3, 1, 10, 8);
  const scheduler::Fence fence{{5, 0}, 9};
  scheduler::SlotSet some;
  some.insert(3);
  some.insert(100);
  const scheduler::Claim claim{fence, 12, some, 4, 2, std::string(32, 'd'), 0.25, true};
  CHECK(claim_of(travel(to_wire(*context, claim))) == claim);
  const scheduler::Grant grant{fence, 12, some};
  CHECK(grant_of(travel(to_wire(*context, grant))) == grant);
  const scheduler::Seal seal{fence, {{0, scheduler::SlotSet::first(3)}, {2, some}}, 9};
  CHECK(seal_of(travel(to_wire(*context, seal))) == seal);
  CHECK(seal_of(travel(to_wire(*context, scheduler::Seal{fence, {}, {}}))).contributions.empty());
}

TEST_CASE("what nodes say about ballots and views arrives as it was sent") {
  const JobContextPtr context = test_context(3, 1, 10, 8);
  const scheduler::Ballot ballot{7, 1};
  const scheduler::Member member{2, "node2", "127.0.0.1:9", std::string(16, 'i'), "host"};
  scheduler::Inventory inventory;
  inventory.ballot = ballot;
  inventory.member = member;
  inventory.step = 40;
  inventory.digest = std::string(32, 'd');
  inventory.folded = scheduler::SlotSet::first(70);
  inventory.half_folded = scheduler::SlotSet::first(2);
  inventory.holds_total = inventory.leaving = true;
  inventory.end_step = 41;
  scheduler::View view;
  view.ballot = ballot;
  view.step = 40;
  view.members = {member};
  view.kept[2] = scheduler::SlotSet::first(2);
  view.total_source = 0;
  view.bulk_key = std::string(32, 'k');
  view.end_step = 50;
  const scheduler::MembershipMessage messages[] = {scheduler::Prepare{ballot},
                                                   inventory,
                                                   view,
                                                   scheduler::Heartbeat{ballot, 40, true},
                                                   scheduler::Join{ballot, member, 40},
                                                   scheduler::Follow{ballot, 40, {0, 2}},
                                                   scheduler::Suspect{ballot, 2, "reset"},
                                                   scheduler::Leave{ballot}};
  for (const auto& message : messages) {
    CAPTURE(message.index());
    const auto arrived = membership_message_of(travel(to_wire(*context, message)));
    REQUIRE(arrived);
    CHECK((*arrived == message));
  }
  CHECK_FALSE(membership_message_of(travel(to_wire(*context, scheduler::Grant{{ballot, 40}, 1, {}}))));
}

TEST_CASE("introductions arrive as they were sent") {
  const JobContextPtr context = test_context(3, 1, 10, 8);
  const scheduler::Member member{2, "node2", "127.0.0.1:9", std::string(16, 'i'), "host"};
  const wire::Envelope arrived =
      travel(introduction(*context, member, std::string(32, 'f'), "isa=v4\n", true));
  CHECK(arrived.introduction().fingerprint_text() == "isa=v4\n");
  CHECK(arrived.introduction().member().name() == "node2");
  CHECK(arrived.introduction().reply());
}

TEST_CASE("a notice arrives as an event of its job, however long it is") {
  const JobContextPtr context = test_context(1, 0, 10, 8);
  const wire::Envelope arrived = travel(notice(*context, std::string(2 * wire::kTextBytesMax, 'n')));
  CHECK(same_job(*context, arrived));
  CHECK(arrived.event().kind() == wire::Event::NOTICE);
  CHECK(arrived.event().why() == std::string(wire::kTextBytesMax, 'n'));
}

TEST_CASE("messages of another job are told apart") {
  const JobContextPtr context = test_context(2, 0, 10, 8);
  CHECK(same_job(*context, envelope(*context)));
  JobContext other = *context;
  other.job_id[0] = 'x';
  CHECK_FALSE(same_job(*context, envelope(other)));
}

TEST_CASE(
    "any text can be said: bytes that are no UTF-8 are replaced, and long ones are cut between characters") {
  CHECK(wire_text("") == "");
  CHECK(wire_text("caf\u00e9") == "caf\u00e9");
  CHECK(wire_text("caf\xe9 \xff.") == "caf? ?.");
  for (size_t letters = wire::kTextBytesMax - 3; letters < wire::kTextBytesMax + 3; ++letters) {
    const std::string cut = wire_text(std::string(letters, 'a') + "\u20ac\u20ac");
    CHECK(cut.size() <= wire::kTextBytesMax);
    CHECK(wire_text(cut) == cut);
    CHECK(cut.find('?') == std::string::npos);
  }
}

TEST_CASE("a path that messages cannot carry is refused by the name of its option") {
  check_path("--out", "");
  check_path("--out", "caf\u00e9");
  CHECK_THROWS_WITH_AS(check_path("--out", "caf\xe9"), doctest::Contains("--out caf? is not UTF-8"), Error);
}
