#include <algorithm>

#include "tests/scheduler/simulation/simulation.hpp"

namespace troupe::simulation {

namespace {

void sort(std::vector<Fault>& faults) {
  std::stable_sort(faults.begin(), faults.end(),
                   [](const Fault& a, const Fault& b) { return a.at_event < b.at_event; });
}

}  // namespace

Scenario make_scenario(uint64_t seed) {
  std::mt19937_64 random(mix(seed));
  Scenario scenario;
  scenario.seed = seed;
  scenario.nodes = uint32_t(1 + random() % 6);
  scenario.quorum = random() % 4 == 0;
  scenario.plan = {.training = uint32_t(1 + random() % 12),
                   .evaluation = uint32_t(random() % 3),
                   .evaluate_every = int64_t(random() % 4),
                   .steps = int64_t(3 + random() % 20)};
  if (seed % 16 == 0) {  // nothing goes wrong, for longer than any patience
    (seed % 32 == 0 ? scenario.slot_us : scenario.chunk_us) = 400'000;
    if (seed % 64 != 16) return scenario;
    // But nodes are parted for a while, where a ring takes longer than the patience.
    for (int64_t i = int64_t(1 + random() % 4); i > 0; --i)
      scenario.faults.push_back({FaultKind::partition, 30 + random() % (scenario.plan.steps * 60),
                                 uint32_t(random() % scenario.nodes), uint32_t(random()),
                                 int64_t(500'000 + random() % 3'000'000)});
    sort(scenario.faults);
    return scenario;
  }
  // Halves that compute the same slots and meet again in the middle of them.
  const bool torn = seed % 4 == 1;
  if (torn) {
    scenario.slot_us = 250'000;
    scenario.plan.training = 40 + uint32_t(random() % 40);
    scenario.plan.steps = 2 + int64_t(random() % 3);
  }
  const auto faults = uint32_t(1 + random() % (random() % 2 ? 8 : 40));
  const uint64_t span = uint64_t(scenario.plan.steps) * (40 + random() % (torn ? 1'500 : 200));
  for (uint32_t i = 0; i < faults; ++i) {
    Fault fault;
    fault.kind = FaultKind(random() % uint64_t(FaultKind::halt));
    if (random() % 30 == 0) fault.kind = FaultKind::halt;
    if (torn && random() % 3 == 0) fault.kind = FaultKind::partition;
    fault.at_event = 30 + random() % span;
    fault.node = uint32_t(random() % scenario.nodes);
    fault.other = uint32_t(fault.kind == FaultKind::partition ? random() : random() % scenario.nodes);
    fault.lasts_us = int64_t(1'000 + random() % (random() % 4 && !torn ? 100'000 : 4'000'000));
    scenario.faults.push_back(fault);
  }
  if (seed % 8 == 3) {  // all are asked to leave at about the same time
    const uint64_t first = 30 + random() % span;
    for (Rank rank = 0; rank < scenario.nodes; ++rank)
      scenario.faults.push_back({FaultKind::leave, first + random() % 20, rank, 0, 1'000});
  }
  sort(scenario.faults);
  return scenario;
}

Simulation::Simulation(const Scenario& scenario)
    : scenario_(scenario),
      random_(mix(scenario.seed + 1)),
      oracle_(oracle(scenario.plan)),
      nodes_(scenario.nodes) {}

std::string Simulation::part_of(const Node& node) const {
  static constexpr const char* kPhases[] = {"",       "idle",   "compute", "reduce", "stopping", "broken",
                                            "commit", "fenced", "drain",   "clear",  "fetch"};
  using Phase = scheduler::MemberRole::Phase;
  Phase phase = node.member->phase();
  // To clear a sum takes a moment only: it counts as the end of draining, or as something to be stopped.
  if (phase == Phase::clear) phase = node.membership->in_view() ? Phase::drain : Phase::stopping;
  const bool ending = phase == Phase::commit || phase == Phase::stopping;
  std::string part = node.membership->in_view()     ? node.membership->leads() ? "leader" : "member"
                     : ending                       ? "promising"
                     : node.membership->preparing() ? "preparer"
                     : node.follows                 ? "joiner"
                                                    : "waiting";
  return part + ", " + kPhases[size_t(phase)];
}

void Simulation::note(const Node& node, FaultKind kind) {
  if (node.alive) ++crossings_[{part_of(node), kind}];
}

// A node that was asked to leave comes back once it has gone.
void Simulation::bring_back(Rank rank) {
  if (!nodes_[rank].alive) return start_process(rank);
  if (nodes_[rank].leaving) at(now_ + 20'000, [this, rank] { bring_back(rank); });
}

void Simulation::ask_to_halt() {
  for (Node& node : nodes_)
    if (node.alive && node.coordinator) apply(node, node.coordinator->stop());
  at(now_ + 200'000, [this] { ask_to_halt(); });
}

void Simulation::inject(const Fault& fault) {
  Node& node = nodes_[fault.node];
  ++faults_active_;
  const Microseconds until = now_ + fault.lasts_us;
  std::function<void()> end = [] {};
  switch (fault.kind) {
    case FaultKind::kill:
    case FaultKind::leave:
      note(node, fault.kind);
      if (fault.kind == FaultKind::leave && node.alive) {
        if (!std::exchange(node.leaving, true)) node.asked_to_leave = now_;
        node.member->leave();
        apply(node, node.membership->on_step(node.state.step, node.member->wants_to_leave(), now_));
        if (node.alive && !node.membership->in_view() && !node.membership->preparing())
          end_process(node, 1'000);
      } else if (node.alive) {
        end_process(node, random_us(500, 5'000));
      }
      end = [this, rank = fault.node] { bring_back(rank); };
      break;
    case FaultKind::stop:
      note(node, fault.kind);
      if (!node.alive || node.stopped_until > now_) break;
      node.stopped_until = until;
      on_node(fault.node, until, [this](Node& self) {
        self.membership->on_clock_jump(now_);
        check_links(self.rank, 0);
      });
      check_links(fault.node, 1'000'000);
      break;
    case FaultKind::cut_pair:
    case FaultKind::partition: {
      std::vector<std::pair<Rank, Rank>> pairs;
      for (Rank a = 0; a < nodes_.size(); ++a)
        for (Rank b = a + 1; b < nodes_.size(); ++b) {
          const bool split =
              fault.kind == FaultKind::partition && (fault.other >> a & 1) != (fault.other >> b & 1);
          const bool cut =
              fault.kind == FaultKind::cut_pair && std::minmax(fault.node, fault.other) == std::minmax(a, b);
          if (split || cut) pairs.emplace_back(a, b);
        }
      for (const auto& [a, b] : pairs) {
        note(nodes_[a], fault.kind);
        note(nodes_[b], fault.kind);
        ++cuts_[{a, b}];
        check_link(a, b, 1'000'000);
      }
      end = [this, pairs] {
        for (const auto& [a, b] : pairs) {
          --cuts_[{a, b}];
          check_link(a, b, 0);
        }
      };
      break;
    }
    case FaultKind::burst:
      for (const Node& each : nodes_) note(each, fault.kind);
      burst_until_ = std::max(burst_until_, until);
      break;
    case FaultKind::slow:
      note(node, fault.kind);
      node.slowness = 10;
      node.slow_until = until;
      break;
    case FaultKind::halt:
      for (const Node& each : nodes_) note(each, fault.kind);
      halted_ = true;
      ask_to_halt();
      break;
    case FaultKind::count:
      break;
  }
  at(until, [this, end] {
    end();
    --faults_active_;
  });
}

}  // namespace troupe::simulation
