#include "tests/scheduler/simulation/simulation.hpp"

namespace troupe::simulation {

namespace {

constexpr Microseconds kTickUs = 10'000;
constexpr size_t kFollowedMax = 256;  // totals that wait to be applied
constexpr Microseconds kOutsideMax = 4'000'000;
constexpr Microseconds kLeavingMax = 20'000'000;
constexpr int kCommitsToLeave = 8;  // its word may be on its way for a while

bool names(const scheduler::View& view, const auto& node) {
  const auto place = view.position(node.rank);
  return place && view.members[*place].incarnation == std::to_string(node.incarnation);
}

}  // namespace

void Simulation::start_process(Rank rank) {
  Node& node = nodes_[rank];
  const uint64_t incarnation = node.incarnation + 1;
  node = Node();
  node.rank = rank;
  node.alive = true;
  node.incarnation = incarnation;
  scheduler::MembershipOptions options;
  options.self = {rank, "node" + std::to_string(rank), "bulk", std::to_string(incarnation), "host"};
  for (Rank each = 0; each < nodes_.size(); ++each) options.nodes.push_back(each);
  options.first_ballot = uint64_t(now_) + 1;
  options.quorum = scenario_.quorum;
  options.start_patience_us = 10'000'000;
  options.patience_us = 1'000'000;
  options.prepare_patience_us = 1'500'000;
  options.pause_us = 500'000;
  options.pause_max_us = 4'000'000;
  node.membership = std::make_unique<scheduler::Membership>(options, 0, now_);
  scheduler::MemberOptions member;
  member.self = rank;
  member.workers = 1 + rank % 3;
  member.lookahead = rank % 2;
  member.repeat_us = 200'000;
  node.member = std::make_unique<scheduler::MemberRole>(member, scenario_.plan, 0, node.state.digest());
  on_node(rank, now_ + random_us(0, kTickUs), [this](Node& self) { tick(self); });
  check_links(rank, 0);
}

void Simulation::end_process(Node& node, Microseconds notice_us) {
  node.alive = false;
  // Its connections are closed, also when a new process is there before anyone has noticed.
  for (Rank peer = 0; peer < nodes_.size(); ++peer)
    if (peer != node.rank)
      at(now_ + notice_us, [this, a = node.rank, peer] {
        set_link(a, peer, false);
        check_link(a, peer, 0);
      });
}

void Simulation::tick(Node& node) {
  apply(node, node.member->on_tick(now_));
  apply(node, node.membership->on_tick(now_));
  if (node.alive && node.coordinator) apply(node, node.coordinator->on_tick(now_));
  if (!node.alive) return;
  const bool outside = node.membership->leads() && !node.membership->view()->position(node.rank);
  if (!outside || node.leaving) node.in_own_view = now_;
  require(now_ - std::max(node.in_own_view, calm_since_) < kOutsideMax,
          "a leader does not catch up with the members of its view");
  const Microseconds steps =
      4 * scenario_.plan.slots(node.state.step) * scenario_.slot_us;  // it ends its own
  require(!node.leaving || now_ - std::max(node.asked_to_leave, calm_since_) < kLeavingMax + steps,
          "a node that was asked to leave is still there");
  take_followed(node);
  on_node(node.rank, now_ + kTickUs, [this](Node& self) { tick(self); });
}

void Simulation::apply(Node& node, scheduler::MembershipActions actions) {
  for (auto& action : actions)
    if (node.alive) std::visit([&](auto& one) { perform(node, one); }, action);
}
void Simulation::apply(Node& node, scheduler::MemberActions actions) {
  for (auto& action : actions)
    if (node.alive) std::visit([&](auto& one) { perform(node, one); }, action);
}
void Simulation::apply(Node& node, scheduler::CoordinatorActions actions) {
  for (auto& action : actions)
    if (node.alive) std::visit([&](auto& one) { perform(node, one); }, action);
}

// --- membership ---

void Simulation::perform(Node& node, scheduler::SendTo& send) {
  require(send.to != node.rank, "a node sends a message to itself");
  if (const auto* view = std::get_if<scheduler::View>(&send.message)) {
    const auto [first, fresh] = views_.try_emplace(view->ballot, *view);
    require(fresh || first->second == *view, "two views of one ballot");
  }
  if (const auto* answer = std::get_if<scheduler::Inventory>(&send.message))
    require(answer->ballot == node.membership->promised(),
            "an inventory for a ballot that is not the promised one");
  say(node.rank, send.to, send.message,
      [this, from = node.rank, sender = node.incarnation, message = send.message](Node& to) {
        if (nodes_[from].incarnation != sender) return;
        if (const auto* view = std::get_if<scheduler::View>(&message))
          require(!names(*view, to) || view->ballot != to.membership->promised() ||
                      to.member->phase() != scheduler::MemberRole::Phase::fenced ||
                      view->step >= to.state.step,
                  "a view goes back to an older step");
        apply(to, to.membership->on_message(from, message, now_));
      });
}

void Simulation::perform(Node& node, scheduler::FenceMember& fence) {
  apply(node, node.member->fence(fence.ballot));
}

void Simulation::perform(Node& node, scheduler::Fenced& fenced) {
  require(fenced.inventory.folded == node.sum.slots, "an inventory names other slots than the sum holds");
  require(fenced.inventory.step == node.state.step, "an inventory names another step than that of the state");
  require(!node.ring, "a promise is answered while the ring still runs");
  require(!fenced.inventory.holds_total || (node.total && node.total_step == node.state.step - 1),
          "an inventory offers a total that is not there");
  apply(node, node.membership->on_fenced(fenced.inventory, now_));
}

void Simulation::perform(Node& node, scheduler::BeginView& begin) {
  const scheduler::View& view = begin.view;
  require(view.ballot == node.membership->promised(), "a view begins that was not promised");
  SlotSet all;
  for (const auto& [rank, slots] : view.kept) {
    require(all.disjoint(slots), "a view keeps one slot in two sums");
    all = all | slots;
  }
  std::erase_if(node.early, [&](const Chunk& chunk) { return chunk.fence.ballot != view.ballot; });
  node.follows.reset();
  if (view.ballot.leader == node.rank) {
    const auto [first, fresh] = views_.try_emplace(view.ballot, view);
    require(fresh || first->second == view, "two views of one ballot");
    for (const auto& [rank, slots] : view.kept) record_grants({view.ballot, view.step}, rank, slots);
    if (view.total_source) {
      const Node& source = nodes_[*view.total_source];
      require(!source.alive || source.membership->promised() != view.ballot ||
                  (source.total && source.total_step == view.step - 1),
              "a total is to be fetched from a member that lacks it");
    }
    node.coordinator = std::make_unique<scheduler::Coordinator>(
        view, scenario_.plan, now_, std::max<Microseconds>(1'000'000, 3 * scenario_.slot_us));
  }
  // Goes out before anything of this view can overwrite it.
  if (view.total_source == node.rank && node.total) node.passed = {view.ballot, *node.total};
  if (view.position(node.rank)) apply(node, node.member->begin(view, now_));
}

void Simulation::perform(Node& node, scheduler::LeaveView&) {
  node.member->leave_view();
}
void Simulation::perform(Node& node, scheduler::EndLead&) {
  node.coordinator.reset();
}
void Simulation::perform(Node& node, scheduler::HasLeft&) {
  end_process(node, 1'000);
}
void Simulation::perform(Node& node, scheduler::EveryoneLeft&) {
  // Its last checkpoint takes a while.
  on_node(node.rank, now_ + 1'000 + Microseconds(random_() % 3'000'000),
          [this](Node& self) { end_process(self, 1'000); });
}

void Simulation::perform(Node& node, scheduler::FollowFrom& follow) {
  if (node.follows && now_ < node.follow_until && nodes_[*node.follows].alive) return;
  std::vector<Rank> sources;
  for (Rank source : follow.sources)
    if (source != node.rank && reachable(source, node.rank)) sources.push_back(source);
  if (sources.empty()) return;
  if (chance(3)) return node.follows.reset();  // what it was offered is not to be had
  const Rank source = sources[random_() % sources.size()];
  node.follows = source;
  node.follow_until = now_ + 500'000;
  node.followed.clear();
  deliver_bulk(node.rank, source, [this, to = node.rank](Node& from) {
    if (nodes_[to].follows != from.rank) return;
    deliver_bulk(from.rank, to, [state = from.state](Node& self) { self.snapshot = state; });
  });
}

// Applies what has come from the source, while this node is in no view and nothing runs.
void Simulation::take_followed(Node& node) {
  if (node.member->phase() != scheduler::MemberRole::Phase::idle || node.member->running() > 0) return;
  const int64_t before = node.state.step;
  if (node.snapshot && node.snapshot->step > node.state.step) node.state = *node.snapshot;
  node.snapshot.reset();
  for (auto next = node.followed.find(node.state.step); next != node.followed.end();
       next = node.followed.find(node.state.step))
    node.state = troupe::simulation::apply(node.state, next->second, scenario_.plan.slots(node.state.step));
  std::erase_if(node.followed, [&](const auto& one) { return one.first < node.state.step; });
  if (node.state.step == before) return;
  require(node.state.digest() == oracle_[size_t(node.state.step)], "a node that caught up has other bits");
  node.sum = {};
  node.total.reset();
  node.follow_until = now_ + 500'000;
  node.member->restore(node.state.step, node.state.digest());
  apply(node, node.membership->on_step(node.state.step, node.leaving, now_));
}

// --- member ---

void Simulation::perform(Node& node, scheduler::SendClaim& send) {
  say(node.rank, send.claim.fence.ballot.leader, send.claim,
      [this, from = node.rank, sender = node.incarnation, claim = send.claim](Node& leader) {
        if (nodes_[from].incarnation != sender || !leader.coordinator) return;
        apply(leader, leader.coordinator->on_claim(from, claim, now_));
        if (leader.coordinator) leader.membership->on_view_step(leader.coordinator->step());
      });
}

void Simulation::perform(Node& node, scheduler::RunSlot& run) {
  require(node.member->view().ballot == node.membership->promised(),
          "a slot starts in a ballot that is void");
  require(run.step == node.state.step, "a slot of another step starts");
  const double slowness = now_ < node.slow_until ? node.slowness : 1;
  const auto took = Microseconds(double(random_us(scenario_.slot_us / 8, scenario_.slot_us)) * slowness);
  on_node(node.rank, now_ + took, [this, run, took](Node& self) {
    require(run.step == self.state.step, "a slot was still running when its step was committed");
    require(!self.sum.slots.contains(run.slot), "a slot is folded twice");
    const Integers one = gradient(self.state, run.slot);
    for (size_t i = 0; i < kWidth; ++i) self.sum.integers[i] += one[i];
    self.sum.slots.insert(run.slot);
    apply(self, self.member->on_slot_done(run.step, run.slot, double(took) * 1e-6, now_));
  });
}

void Simulation::perform(Node& node, scheduler::ClearSum&) {
  on_node(node.rank, now_ + random_us(10, 20'000), [this](Node& self) {
    require(self.member->running() == 0, "a sum is cleared while slots fold into it");
    self.sum = {};
    apply(self, self.member->on_cleared(now_));
  });
}

void Simulation::perform(Node& node, scheduler::StartCommit& commit) {
  on_node(node.rank, now_ + random_us(100, 2'000), [this, commit](Node& self) {
    require(self.total && self.total_step == commit.step, "a step is committed without its total");
    require(self.state.step == commit.step, "a total is applied to another state than its own");
    require(self.member->running() == 0, "a step is committed while slots fold into its sum");
    committed(self);
  });
}

void Simulation::committed(Node& node) {
  const int64_t step = node.state.step;
  node.state = troupe::simulation::apply(node.state, *node.total, scenario_.plan.slots(step));
  if (node.state.digest() != oracle_[size_t(node.state.step)])
    broken("step " + std::to_string(step) + " has other bits");
  node.sum = {};
  for (Node& other : nodes_)
    if (other.alive && other.follows == node.rank)
      deliver_bulk(node.rank, other.rank, [step, total = *node.total](Node& self) {
        if (self.followed.size() < kFollowedMax) self.followed[step] = total;
      });
  apply(node, node.member->on_committed(step, node.state.digest(), now_));
  if (!node.alive) return;
  const auto& members = node.member->view().members;
  const bool others_stay = std::any_of(members.begin(), members.end(), [&](const scheduler::Member& member) {
    return member.rank != node.rank && nodes_[member.rank].alive && !nodes_[member.rank].leaving;
  });
  if (node.leaving && others_stay)
    require(++node.commits_since_asked <= kCommitsToLeave, "a node that was asked to leave stays");
  apply(node, node.membership->on_step(node.state.step, node.member->wants_to_leave(), now_));
}

void Simulation::perform(Node& node, scheduler::FetchTotal& fetch) {
  const Fence fence = fetch.fence;
  deliver_bulk(node.rank, fetch.source, [this, fence, to = node.rank](Node& source) {
    const bool began = source.passed && source.passed->first == fence.ballot;
    if (!began && (!source.total || source.total_step != fence.step)) return;
    deliver_bulk(source.rank, to,
                 [this, fence, total = began ? source.passed->second : *source.total](Node& self) {
                   if (self.member->phase() != scheduler::MemberRole::Phase::fetch ||
                       self.member->view().ballot != fence.ballot)
                     return;
                   self.total = total;
                   self.total_step = fence.step;
                   self.fetched = fence.ballot;
                   apply(self, self.member->on_total_fetched(fence));
                 });
  });
  on_node(node.rank, now_ + 300'000, [this, fence, source = fetch.source](Node& self) {
    if (self.member->phase() != scheduler::MemberRole::Phase::fetch ||
        self.member->view().ballot != fence.ballot || self.fetched == fence.ballot)
      return;
    apply(self, self.member->on_fetch_failed(fence));
    apply(self, self.membership->on_broken(source, "the total did not come", now_));
  });
}

// --- coordinator ---

void Simulation::record_grants(const Fence& fence, Rank to, const SlotSet& slots) {
  auto& owners = granted_[{fence.ballot, fence.step}];
  for (uint32_t slot : slots.to_vector()) {
    const auto [owner, fresh] = owners.try_emplace(slot, to);
    require(fresh || owner->second == to, "a slot is granted to two members of one ballot");
  }
}

void Simulation::perform(Node& node, scheduler::SendGrant& send) {
  record_grants(send.grant.fence, send.to, send.grant.slots);
  say(node.rank, send.to, send.grant,
      [this, grant = send.grant](Node& to) { apply(to, to.member->on_grant(grant, now_)); });
}

void Simulation::perform(Node& node, scheduler::SendSeal& send) {
  SlotSet all;
  for (const auto& [rank, slots] : send.seal.contributions) record_grants(send.seal.fence, rank, slots);
  for (const auto& member : node.coordinator->view().members)
    if (!send.to || *send.to == member.rank)
      say(node.rank, member.rank, send.seal,
          [this, seal = send.seal](Node& to) { apply(to, to.member->on_seal(seal, now_)); });
}

void Simulation::perform(Node& node, scheduler::AllCommitted& all) {
  require(all.digest == oracle_[size_t(all.step)], "the job ends with other weights");
  require(halted_ || all.step == scenario_.plan.steps, "the job ends too early");
  end_step_ = all.step;
  for (const auto& member : node.coordinator->view().members) {
    // A leader that stood still may hear of the last commit, and end the job that was asked to, when others
    // have gone on.
    const Node& other = nodes_[member.rank];
    require(!other.alive || std::to_string(other.incarnation) != member.incarnation ||
                other.state.step == all.step || (halted_ && other.state.step > all.step),
            "the job ends before a member has its weights");
  }
  ended_ = true;
}

void Simulation::perform(Node& node, scheduler::MemberStuck& stuck) {
  apply(node, node.membership->on_stuck(stuck.rank, now_));
}

void Simulation::perform(Node& node, scheduler::Failure& failure) {
  broken("node " + std::to_string(node.rank) + " gives up: " + failure.message);
}

}  // namespace troupe::simulation
