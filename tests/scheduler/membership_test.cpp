#include "scheduler/membership.hpp"

#include <doctest/doctest.h>

#include "tests/scheduler/support.hpp"

using namespace troupe::scheduler;

namespace {

constexpr Microseconds kSecond = 1'000'000;

MembershipOptions options(Rank self, uint32_t nodes) {
  MembershipOptions o;
  o.self = make_view(nodes).members.at(self);
  for (Rank rank = 0; rank < nodes; ++rank) o.nodes.push_back(rank);
  return o;
}

Inventory inventory(const Ballot& ballot, Rank rank, int64_t step, SlotSet folded = {}) {
  Inventory answer;
  answer.ballot = ballot;
  answer.member = make_view(8).members.at(rank);
  answer.step = step;
  answer.digest = "x" + std::to_string(step);
  answer.folded = std::move(folded);
  return answer;
}

template <typename T>
std::vector<std::pair<Rank, T>> sent(const MembershipActions& actions) {
  std::vector<std::pair<Rank, T>> found;
  for (const SendTo& send : pick<SendTo>(actions))
    if (const T* one = std::get_if<T>(&send.message)) found.emplace_back(send.to, *one);
  return found;
}

// Node 0 of three, whose ballot {1, 0} the others are asked to promise.
Membership preparing(uint32_t nodes = 3) {
  Membership membership(options(0, nodes), 0, 0);
  for (Rank peer = 1; peer < nodes; ++peer) {
    membership.on_peer_up(peer, 0);
    membership.on_message(peer, Join{{}, make_view(nodes).members.at(peer), 0}, 0);
  }
  membership.on_tick(kSecond);
  REQUIRE(membership.preparing());
  membership.on_fenced(inventory({1, 0}, 0, 0), kSecond);
  return membership;
}

// Of three nodes, that all promise ballot {2, 0} at x(0).
View second_view(Membership& membership) {
  REQUIRE(membership.promised() == Ballot{2, 0});
  membership.on_fenced(inventory({2, 0}, 0, 0), 2 * kSecond);
  membership.on_message(1, inventory({2, 0}, 1, 0), 2 * kSecond);
  const auto actions = membership.on_message(2, inventory({2, 0}, 2, 0), 2 * kSecond);
  return pick<BeginView>(actions).at(0).view;
}
// The first view of the three, at x(0).
Membership leading() {
  Membership membership = preparing();
  membership.on_message(1, inventory({1, 0}, 1, 0), kSecond);
  membership.on_message(2, inventory({1, 0}, 2, 0), kSecond);
  return membership;
}

}  // namespace

TEST_CASE("the first view forms when every node is there, led by the lowest") {
  Membership membership = preparing();
  CHECK(membership.on_message(1, inventory({1, 0}, 1, 0), kSecond).empty());
  const auto actions = membership.on_message(2, inventory({1, 0}, 2, 0), kSecond);
  CHECK(sent<View>(actions).size() == 2);
  REQUIRE(pick<BeginView>(actions).size() == 1);
  CHECK(pick<BeginView>(actions)[0].view.members.size() == 3);
  CHECK(membership.leads());
}

TEST_CASE("a node that does not answer is waited for, and then left out") {
  Membership membership = preparing();
  membership.on_message(1, inventory({1, 0}, 1, 0), kSecond);
  CHECK(pick<BeginView>(membership.on_tick(2 * kSecond)).empty());
  const auto actions = membership.on_tick(7 * kSecond);
  REQUIRE(pick<BeginView>(actions).size() == 1);
  CHECK_FALSE(pick<BeginView>(actions)[0].view.position(2));
}

TEST_CASE("a node whose link is lost is not waited for") {
  Membership membership = preparing();
  membership.on_message(1, inventory({1, 0}, 1, 0), kSecond);
  const auto actions = membership.on_peer_down(2, kSecond + 1);
  REQUIRE(pick<BeginView>(actions).size() == 1);
  CHECK(pick<BeginView>(actions)[0].view.members.size() == 2);
}

TEST_CASE("of sums that share a slot the larger stays; sums of an older step do not") {
  Membership membership = preparing(4);
  membership.on_message(1, inventory({1, 0}, 1, 5, slots({0, 1})), kSecond);
  membership.on_message(2, inventory({1, 0}, 2, 5, slots({1, 2, 3})), kSecond);
  Inventory behind = inventory({1, 0}, 3, 4, slots({7}));
  const auto actions = membership.on_message(3, behind, kSecond);
  REQUIRE(sent<View>(actions).size() == 3);
  const View view = sent<View>(actions)[0].second;
  CHECK(view.step == 5);
  CHECK(view.kept == std::map<Rank, SlotSet>{{2, slots({1, 2, 3})}});
  CHECK_FALSE(view.position(3));  // nobody has the total that it lacks
  CHECK_FALSE(view.position(0));  // five steps behind: it leads, and follows
  CHECK(pick<FollowFrom>(actions).size() == 1);
}

TEST_CASE("a member that is one step behind stays when another has the total") {
  Membership membership = preparing();
  Inventory holder = inventory({1, 0}, 1, 1);
  holder.holds_total = true;
  membership.on_message(1, holder, kSecond);
  const auto actions = membership.on_message(2, inventory({1, 0}, 2, 0), kSecond);
  const View view = pick<BeginView>(actions).at(0).view;
  CHECK(view.step == 1);
  CHECK(view.members.size() == 3);
  CHECK(view.total_source == 1);
}

TEST_CASE("a leader whose members all leave at once says so, and then nothing more") {
  Membership membership = leading();
  CHECK(membership.on_step(1, true, 2 * kSecond).size() > 0);
  Inventory answers[3];
  for (Rank rank = 0; rank < 3; ++rank) {
    answers[rank] = inventory({2, 0}, rank, 1);
    answers[rank].leaving = true;
  }
  membership.on_fenced(answers[0], 2 * kSecond);
  membership.on_message(1, answers[1], 2 * kSecond);
  CHECK(pick<EveryoneLeft>(membership.on_message(2, answers[2], 2 * kSecond)).size() == 1);
  for (int second = 3; second < 20; ++second) CHECK(membership.on_tick(second * kSecond).empty());
}

TEST_CASE("who wants to leave and has lost the others waits for them before it ends the job") {
  const auto leaving_alone = [](Membership& membership) {
    CHECK(membership.on_step(1, true, 2 * kSecond).size() > 0);
    Inventory own = inventory({2, 0}, 0, 1);
    own.leaving = true;
    membership.on_fenced(own, 2 * kSecond);
    CHECK(pick<EveryoneLeft>(membership.on_peer_down(1, 2 * kSecond)).empty());
    CHECK(pick<EveryoneLeft>(membership.on_peer_down(2, 2 * kSecond)).empty());
    CHECK(pick<EveryoneLeft>(membership.on_tick(3 * kSecond)).empty());
  };
  Membership deserted = leading();
  leaving_alone(deserted);
  CHECK(pick<EveryoneLeft>(deserted.on_tick(20 * kSecond)).size() == 1);

  Membership cut_off = leading();
  leaving_alone(cut_off);
  cut_off.on_peer_up(1, 3 * kSecond);
  const auto asked = sent<Prepare>(cut_off.on_tick(3 * kSecond + 1));
  REQUIRE(asked.size() == 1);
  CHECK(asked[0].first == 1);
  Inventory own = inventory(asked[0].second.ballot, 0, 1);
  own.leaving = true;
  cut_off.on_fenced(own, 4 * kSecond);
  const auto actions = cut_off.on_message(1, inventory(asked[0].second.ballot, 1, 800), 4 * kSecond);
  CHECK(pick<EveryoneLeft>(actions).empty());
  CHECK(pick<HasLeft>(actions).size() == 1);
  CHECK(sent<View>(actions).at(0).second.step == 800);
}

TEST_CASE("a leader that wants to leave stays while another needs its total, and then leaves") {
  Membership membership = leading();
  CHECK(membership.on_step(1, true, 2 * kSecond).size() > 0);
  Inventory own = inventory({2, 0}, 0, 1);
  own.leaving = own.holds_total = true;
  membership.on_fenced(own, 2 * kSecond);
  membership.on_message(1, inventory({2, 0}, 1, 0), 2 * kSecond);
  const auto actions = membership.on_message(2, inventory({2, 0}, 2, 0), 2 * kSecond);
  CHECK(pick<BeginView>(actions).at(0).view.position(0));
  membership.on_step(2, true, 3 * kSecond);
  own = inventory({3, 0}, 0, 2);
  own.leaving = true;
  membership.on_fenced(own, 3 * kSecond);
  membership.on_message(1, inventory({3, 0}, 1, 2), 3 * kSecond);
  const auto later = membership.on_message(2, inventory({3, 0}, 2, 2), 3 * kSecond);
  CHECK_FALSE(sent<View>(later).at(0).second.position(0));
  CHECK(pick<HasLeft>(later).size() == 1);
}

TEST_CASE("a leader that wants to leave does not stay for one that is a step behind and leaves too") {
  Membership membership = leading();
  CHECK(membership.on_step(1, true, 2 * kSecond).size() > 0);
  Inventory own = inventory({2, 0}, 0, 1), behind = inventory({2, 0}, 1, 0);
  own.leaving = own.holds_total = behind.leaving = true;
  membership.on_fenced(own, 2 * kSecond);
  membership.on_message(1, behind, 2 * kSecond);
  behind = inventory({2, 0}, 2, 0);
  behind.leaving = true;
  CHECK(pick<EveryoneLeft>(membership.on_message(2, behind, 2 * kSecond)).size() == 1);
}

TEST_CASE(
    "a leader that wants to leave waits for those who fetch its state, and no longer when they are gone") {
  Membership membership = leading();
  CHECK(membership.on_step(9, true, 2 * kSecond).size() > 0);
  Inventory own = inventory({2, 0}, 0, 9);
  own.leaving = true;
  membership.on_fenced(own, 2 * kSecond);
  for (const Rank rank : {1, 2}) membership.on_message(rank, inventory({2, 0}, rank, 3), 2 * kSecond);
  REQUIRE(membership.leads());
  CHECK(membership.view()->members.size() == 1);
  for (int second = 3; second < 20; ++second)
    CHECK(pick<FenceMember>(membership.on_tick(second * kSecond)).empty());
  membership.on_peer_down(1, 20 * kSecond);
  membership.on_peer_down(2, 20 * kSecond);
  CHECK(pick<FenceMember>(membership.on_tick(21 * kSecond)).size() == 1);
  own.ballot = membership.promised();
  CHECK(pick<EveryoneLeft>(membership.on_fenced(own, 21 * kSecond)).size() == 1);
}

TEST_CASE("states of one step that differ end the job, by name") {
  Membership membership = preparing();
  membership.on_message(1, inventory({1, 0}, 1, 0), kSecond);
  Inventory other = inventory({1, 0}, 2, 0);
  other.digest = "y0";
  const auto failures = pick<Failure>(membership.on_message(2, other, kSecond));
  REQUIRE(failures.size() == 1);
  CHECK(failures[0].message.find("node2") != std::string::npos);
}

TEST_CASE("lower ballots are answered with the one that was promised") {
  Membership membership(options(1, 3), 0, 0);
  membership.on_peer_up(0, 0);
  membership.on_peer_up(2, 0);
  CHECK(pick<FenceMember>(membership.on_message(2, Prepare{{4, 2}}, 0)).size() == 1);
  const auto answer = sent<Heartbeat>(membership.on_message(0, Prepare{{3, 0}}, 0));
  REQUIRE(answer.size() == 1);
  CHECK(answer[0].second.ballot == Ballot{4, 2});
}

TEST_CASE("when the leader is lost the lowest live member prepares at once, the next after the patience") {
  for (const Rank self : {1u, 2u}) {
    CAPTURE(self);
    Membership membership(options(self, 3), 0, 0);
    for (Rank peer = 0; peer < 3; ++peer)
      if (peer != self) membership.on_peer_up(peer, 0);
    membership.on_message(0, Prepare{{1, 0}}, 0);
    membership.on_fenced(inventory({1, 0}, self, 0), 0);
    membership.on_message(0, make_view(3), 0);
    REQUIRE(membership.in_view());
    const auto at_once = sent<Prepare>(membership.on_peer_down(0, kSecond));
    CHECK(at_once.size() == (self == 1 ? 1 : 0));
    if (self == 2) CHECK(sent<Prepare>(membership.on_tick(kSecond + 4 * kSecond)).size() == 1);
    CHECK(membership.promised() == Ballot{2, self});
  }
}

TEST_CASE("of two members whose link is broken one stays, and the other may come back after a pause") {
  Membership membership = leading();
  membership.on_message(1, Suspect{{1, 0}, 2, "reset"}, 2 * kSecond);
  const View view = second_view(membership);
  CHECK(view.position(1));
  CHECK_FALSE(view.position(2));
  const Join join{{2, 0}, make_view(3).members[2], 0};
  membership.on_view_step(1);
  CHECK(membership.on_message(2, join, 2 * kSecond + 1).empty());
  CHECK(sent<Prepare>(membership.on_message(2, join, 4 * kSecond)).size() == 2);
}

TEST_CASE("with a quorum a minority forms no view") {
  MembershipOptions o = options(0, 3);
  o.quorum = true;
  o.start_patience_us = kSecond;
  Membership membership(o, 0, 0);
  membership.on_tick(2 * kSecond);
  REQUIRE(membership.preparing());
  CHECK(pick<BeginView>(membership.on_fenced(inventory({1, 0}, 0, 0), 2 * kSecond)).empty());
  CHECK(pick<BeginView>(membership.on_tick(60 * kSecond)).empty());
}

TEST_CASE("guests have no vote and are not waited for") {
  MembershipOptions o = options(0, 4);
  o.quorum = true;
  o.guests = {2, 3};
  o.awaited = {0, 1};
  o.start_patience_us = 60 * kSecond;
  Membership membership(o, 0, 0);
  for (Rank guest : {2u, 3u}) {
    membership.on_peer_up(guest, 0);
    membership.on_message(guest, Join{{}, Member{guest, "guest", "bulk", "incarnation", "host"}, 0}, 0);
  }
  membership.on_tick(30 * kSecond);
  CHECK_FALSE(membership.preparing());  // node 1 is to be there
  membership.on_tick(61 * kSecond);
  REQUIRE(membership.preparing());
  membership.on_fenced(inventory(membership.promised(), 0, 0), 61 * kSecond);
  for (Rank guest : {2u, 3u})
    CHECK(pick<BeginView>(
              membership.on_message(guest, inventory(membership.promised(), guest, 0), 61 * kSecond))
              .empty());  // three of four, but one vote of two
}

TEST_CASE("a joiner that is far behind is told whom to follow; one that is not makes a new view") {
  Membership membership = preparing();
  membership.on_message(1, inventory({1, 0}, 1, 9), kSecond);
  membership.on_message(2, inventory({1, 0}, 2, 9), kSecond);
  const Member back{2, "node2", "bulk", "another", "host"};
  membership.on_peer_down(2, kSecond);
  membership.on_fenced(inventory({2, 0}, 0, 0), kSecond);
  membership.on_message(1, inventory({2, 0}, 1, 9), kSecond);
  REQUIRE(membership.leads());
  membership.on_peer_up(2, kSecond);
  const auto follow = sent<Follow>(membership.on_message(2, Join{{}, back, 0}, kSecond));
  REQUIRE(follow.size() == 1);
  CHECK(follow[0].second.sources == std::vector<Rank>{1});
  // Not in the middle of a view's first step, if that comes to an end.
  CHECK(membership.on_message(2, Join{{}, back, 8}, kSecond).empty());
  membership.on_view_step(10);
  CHECK_FALSE(sent<Prepare>(membership.on_message(2, Join{{}, back, 9}, kSecond)).empty());
}

TEST_CASE("a node one step behind whose total nobody holds any more costs one view, and follows then") {
  Membership membership = preparing();
  membership.on_message(1, inventory({1, 0}, 1, 0), kSecond);
  membership.on_message(2, inventory({1, 0}, 2, 0), kSecond);
  const Member back{2, "node2", "bulk", "another", "host"};
  const auto form_again = [&](Microseconds now, int64_t of_joiner) {
    const Ballot ballot = membership.promised();
    membership.on_fenced(inventory(ballot, 0, 9), now);
    membership.on_message(1, inventory(ballot, 1, 9), now);
    const auto begun = pick<BeginView>(membership.on_message(2, inventory(ballot, 2, of_joiner), now));
    REQUIRE(begun.size() == 1);
    return begun[0].view.members.size();
  };
  membership.on_view_step(9);
  REQUIRE_FALSE(sent<Prepare>(membership.on_message(2, Join{{}, back, 8}, kSecond)).empty());
  CHECK(form_again(kSecond, 8) == 2);
  // Beyond the patience after which a view that commits nothing takes who comes.
  const Join behind{membership.promised(), back, 8};
  CHECK(sent<Follow>(membership.on_message(2, behind, 2 * kSecond)).size() == 1);
  CHECK(sent<Follow>(membership.on_message(2, behind, 6 * kSecond)).size() == 1);
  REQUIRE(membership.leads());
  CHECK_FALSE(
      sent<Prepare>(membership.on_message(2, Join{membership.promised(), back, 9}, 6 * kSecond)).empty());
  CHECK(form_again(6 * kSecond, 9) == 3);
}

TEST_CASE("who comes after its pause is tried again, though it is still a step behind") {
  Membership membership = preparing();
  membership.on_message(1, inventory({1, 0}, 1, 9), kSecond);
  membership.on_message(2, inventory({1, 0}, 2, 8), kSecond);
  REQUIRE(membership.leads());
  membership.on_fenced(inventory({1, 0}, 0, 0), kSecond);
  const Join behind{membership.promised(), make_view(3).members[2], 8};
  CHECK(sent<Follow>(membership.on_message(2, behind, 6 * kSecond)).size() == 1);
  CHECK_FALSE(sent<Prepare>(membership.on_message(2, behind, 8 * kSecond)).empty());
}

TEST_CASE("a node in no view asks to be let in as soon as it is as far as the leader was") {
  Membership membership(options(2, 3), 5, 0);
  for (Rank peer : {Rank{0}, Rank{1}}) membership.on_peer_up(peer, 0);
  membership.on_message(0, Follow{{3, 0}, 8, {0, 1}}, 0);
  CHECK(membership.on_step(7, false, 1000).empty());
  const auto joins = sent<Join>(membership.on_step(8, false, 2000));
  REQUIRE(joins.size() == 1);
  CHECK(joins[0].first == 0);
  CHECK(joins[0].second.step == 8);
}

TEST_CASE("who joins does not wait for a view that commits nothing") {
  Membership membership = preparing();
  membership.on_message(1, inventory({1, 0}, 1, 9), kSecond);
  membership.on_peer_down(2, kSecond);
  REQUIRE(membership.leads());
  const Join join{{}, Member{2, "node2", "bulk", "another", "host"}, 9};
  membership.on_peer_up(2, 2 * kSecond);
  CHECK(membership.on_message(2, join, 2 * kSecond).empty());
  CHECK_FALSE(sent<Prepare>(membership.on_message(2, join, 9 * kSecond)).empty());
}

TEST_CASE("a node that was gone before the first view is not waited for") {
  Membership membership(options(0, 3), 0, 0);
  for (Rank peer : {Rank{1}, Rank{2}}) membership.on_peer_up(peer, 0);
  membership.on_message(1, Join{{}, make_view(3).members[1], 0}, 0);
  membership.on_tick(kSecond);
  CHECK_FALSE(membership.preparing());
  membership.on_peer_down(2, kSecond);
  membership.on_tick(2 * kSecond);
  CHECK(membership.preparing());
}

TEST_CASE("a view that names an earlier process of a node is not this one's") {
  MembershipOptions o = options(2, 3);
  o.self.incarnation = "another";
  Membership membership(o, 5, 0);
  membership.on_peer_up(0, 0);
  membership.on_message(0, Prepare{{7, 0}}, 0);
  membership.on_fenced(inventory({7, 0}, 2, 5), 0);
  View view = make_view(3, 0, 5);
  view.ballot = {7, 0};
  const auto actions = membership.on_message(0, view, 0);
  CHECK(pick<BeginView>(actions).empty());
  CHECK(pick<LeaveView>(actions).size() == 1);
}

TEST_CASE("a node that hears of a view far ahead gives up its own") {
  Membership alone(options(0, 2), 3, 0);
  alone.on_peer_up(1, 0);
  alone.on_peer_down(1, 0);
  alone.on_tick(kSecond);
  alone.on_fenced(inventory({1, 0}, 0, 3), kSecond);
  REQUIRE(alone.leads());
  alone.on_peer_up(1, 2 * kSecond);
  CHECK(pick<FenceMember>(alone.on_message(1, Heartbeat{{9, 1}, 4, true}, 2 * kSecond)).empty());
  const auto actions = alone.on_message(1, Heartbeat{{9, 1}, 50, true}, 2 * kSecond);
  CHECK(pick<EndLead>(actions).size() == 1);
  REQUIRE(pick<FenceMember>(actions).size() == 1);
  CHECK(alone.promised() == Ballot{9, 1});
}

TEST_CASE("a member whose ring ended without a peer to blame gets a new view, and nobody is left out") {
  Membership membership = leading();
  membership.on_message(1, Suspect{{1, 0}, 1, "the ring has ended"}, 2 * kSecond);
  CHECK(second_view(membership).members.size() == 3);
}

TEST_CASE("a member that holds the others up is left out, and comes back after a pause") {
  Membership membership = leading();
  CHECK(membership.on_stuck(0, 2 * kSecond).empty());  // not itself
  CHECK_FALSE(membership.on_stuck(1, 2 * kSecond).empty());
  const View view = second_view(membership);
  CHECK_FALSE(view.position(1));
  CHECK(view.position(2));
  const Join join{{2, 0}, make_view(3).members[1], 0};
  membership.on_view_step(1);
  CHECK(membership.on_message(1, join, 2 * kSecond + 1).empty());
  CHECK_FALSE(sent<Prepare>(membership.on_message(1, join, 4 * kSecond)).empty());
}
