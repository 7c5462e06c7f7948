// One simulated run of a whole cluster: the production state machines of scheduler/ on one thread, a virtual
// clock, a network that delays, loses, copies and reorders, bulk connections that break, and faults. The same
// scenario gives the same run, event by event. Every invariant of the protocol is checked at every event; a
// broken one throws Broken.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "scheduler/coordinator.hpp"
#include "scheduler/member.hpp"
#include "scheduler/membership.hpp"
#include "tests/scheduler/simulation/faults.hpp"
#include "tests/scheduler/simulation/tiny_model.hpp"

namespace troupe::simulation {

using scheduler::Ballot;
using scheduler::Fence;
using scheduler::Microseconds;
using scheduler::Rank;
using scheduler::SlotSet;

struct Broken : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Scenario {
  uint64_t seed = 0;
  uint32_t nodes = 3;
  scheduler::SlotPlan plan;
  bool quorum = false;
  Microseconds slot_us = 8'000;   // the longest that a slot takes
  Microseconds chunk_us = 2'000;  // the longest that a chunk of a ring takes
  std::vector<Fault> faults;
};
// A scenario from a seed: 1 to 6 nodes, a short job, a few faults.
Scenario make_scenario(uint64_t seed);

// Which part a node played, and where in it, when a fault struck: counts for the table of crossings.
using Crossings = std::map<std::pair<std::string, FaultKind>, uint64_t>;

// What crosses the links between two nodes.
using LinkWord =
    std::variant<scheduler::MembershipMessage, scheduler::Claim, scheduler::Grant, scheduler::Seal>;
using Observer = std::function<void(Rank from, Rank to, const LinkWord& word)>;

struct Sum {  // a SUM as docs/design.md has it: set and integers change together
  SlotSet slots;
  Integers integers{};
};

// One member's part of a ring allreduce (Patarasuk and Yuan 2009), segment by segment.
struct Chunk {
  Fence fence;
  Rank from = 0;
  uint32_t turn = 0;  // 0 .. 2(N-1)-1: reduce-scatter, then all-gather
  uint32_t segment = 0;
  SlotSet slots;
  std::vector<int64_t> integers;
};
struct Ring {
  scheduler::Seal seal;
  std::vector<Rank> order;
  size_t position = 0;
  uint32_t turn = 0;          // the next to be received
  std::vector<Sum> segments;  // as they stand here
};

class Simulation {
 public:
  explicit Simulation(const Scenario& scenario);
  // Before run(): is told of every word that one node sends to another.
  void observe(Observer observer) { observer_ = std::move(observer); }
  // Until the job has ended. Throws Broken.
  void run();
  const Crossings& crossings() const { return crossings_; }
  uint64_t events() const { return handled_; }
  Microseconds now() const { return now_; }
  uint64_t views() const { return views_.size(); }
  int64_t end_step() const { return end_step_; }

 private:
  struct Node {
    Rank rank = 0;
    bool alive = false;
    uint64_t incarnation = 0;
    Microseconds stopped_until = 0;
    double slowness = 1;
    Microseconds slow_until = 0;
    bool leaving = false;
    Microseconds asked_to_leave = 0;
    int commits_since_asked = 0;   // to leave
    Microseconds in_own_view = 0;  // when it last was, or did not lead
    State state;
    Sum sum;
    std::optional<Integers> total;  // R(total_step), whole
    int64_t total_step = -1;
    std::optional<std::pair<Ballot, Integers>> passed;  // what it gives in this view to those who lack it
    Ballot fetched;                                     // the view in which a total came to it
    std::optional<Ring> ring;
    std::vector<Chunk> early;  // chunks of a ring that this node has not begun
    std::optional<Rank> follows;
    Microseconds follow_until = 0;  // without progress until then, it looks for another source
    std::optional<State> snapshot;
    std::map<int64_t, Integers> followed;  // totals that wait to be applied
    std::unique_ptr<scheduler::Membership> membership;
    std::unique_ptr<scheduler::MemberRole> member;
    std::unique_ptr<scheduler::Coordinator> coordinator;
  };
  using Run = std::function<void(Node&)>;
  struct Parcel {
    uint64_t from_incarnation = 0, to_incarnation = 0;
    Run event;
  };

  // events.cpp: the clock, the network
  void at(Microseconds when, std::function<void()> event);
  void on_node(Rank rank, Microseconds when,
               Run event);  // if the same process is still alive; later if it stands still
  void deliver(Rank from, Rank to, Run event);
  void say(Rank from, Rank to, const LinkWord& word, Run event);  // delivers it, and tells the observer
  void deliver_bulk(Rank from, Rank to, Run event);
  void carry_bulk(Rank from, Rank to);
  Microseconds random_us(Microseconds low, Microseconds high);
  bool chance(uint32_t one_in);
  bool reachable(Rank a, Rank b) const;
  void check_link(Rank a, Rank b, Microseconds notice_us);
  void check_links(Rank a, Microseconds notice_us);
  void set_link(Rank a, Rank b, bool up);

  // process.cpp: what a node's process does with the decisions
  void start_process(Rank rank);
  void end_process(Node& node, Microseconds notice_us);
  void tick(Node& node);
  void apply(Node& node, scheduler::MembershipActions actions);
  void apply(Node& node, scheduler::MemberActions actions);
  void apply(Node& node, scheduler::CoordinatorActions actions);
  void perform(Node& node, scheduler::SendTo& send);
  void perform(Node& node, scheduler::FenceMember& fence);
  void perform(Node& node, scheduler::BeginView& begin);
  void perform(Node& node, scheduler::LeaveView&);
  void perform(Node& node, scheduler::EndLead&);
  void perform(Node& node, scheduler::FollowFrom& follow);
  void perform(Node& node, scheduler::HasLeft&);
  void perform(Node& node, scheduler::MemberStuck& stuck);
  void perform(Node& node, scheduler::EveryoneLeft&);
  void perform(Node& node, scheduler::SendClaim& send);
  void perform(Node&, scheduler::PrefetchSlots&) {}
  void perform(Node& node, scheduler::RunSlot& run);
  void perform(Node& node, scheduler::FeedReduce& feed);
  void perform(Node& node, scheduler::StartReduce& start);
  void perform(Node& node, scheduler::StopReduce& stop);
  void perform(Node& node, scheduler::StartCommit& commit);
  void perform(Node& node, scheduler::ClearSum&);
  void perform(Node& node, scheduler::FetchTotal& fetch);
  void perform(Node&, scheduler::StopFetch&) {}
  void perform(Node& node, scheduler::Fenced& fenced);
  void perform(Node& node, scheduler::SendGrant& send);
  void perform(Node& node, scheduler::SendSeal& send);
  void perform(Node& node, scheduler::AllCommitted& all);
  void perform(Node& node, scheduler::Failure& failure);
  void committed(Node& node);
  void record_grants(const Fence& fence, Rank to, const SlotSet& slots);
  void take_followed(Node& node);

  // ring.cpp
  void ring_send(Node& node, uint32_t turn, uint32_t segment);
  void ring_receive(Node& node, const Chunk& chunk);
  void ring_finish(Node& node);
  void ring_broken(Node& node, Rank peer);

  // inject.cpp
  void inject(const Fault& fault);
  void bring_back(Rank rank);
  void ask_to_halt();
  void note(const Node& node, FaultKind kind);

  [[noreturn]] void broken(const std::string& what) const;
  void require(bool truth, const char* what) const {
    if (!truth) broken(what);
  }
  std::string part_of(const Node& node) const;
  std::string all_nodes() const;

  Scenario scenario_;
  Observer observer_;
  std::mt19937_64 random_;
  std::vector<std::string> oracle_;
  std::vector<Node> nodes_;
  std::map<std::pair<Microseconds, uint64_t>, std::function<void()>> events_;
  uint64_t sequence_ = 0, handled_ = 0;
  Microseconds now_ = 0;
  size_t next_fault_ = 0;
  uint32_t faults_active_ = 0;
  Microseconds calm_since_ = 0;
  Microseconds burst_until_ = 0;
  std::map<std::pair<Rank, Rank>, int> cuts_;
  std::set<std::pair<Rank, Rank>> links_;
  std::map<std::pair<Rank, Rank>, std::deque<Parcel>> bulk_;
  bool ended_ = false, halted_ = false;
  int64_t end_step_ = 0;
  Crossings crossings_;
  // What the invariants are checked against.
  std::map<Ballot, scheduler::View> views_;
  std::map<std::pair<Ballot, int64_t>, std::map<uint32_t, Rank>> granted_;
};

}  // namespace troupe::simulation
