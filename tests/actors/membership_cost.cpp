// membership_cost [NODES...]: what it takes to hold many nodes together, by simulation: the production state
// machines on a virtual clock (tests/scheduler/simulation), with the wire form of what they say. One slot a
// node and step. For the leader, and for the mean of the others: messages and bytes sent a step (claims,
// grants, the seal), a second (signs of life of the membership; those of the links, a message of some 40
// bytes to each peer every 300 ms of silence, are not simulated), and for one new view when a node is killed.
#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "actors/wire.hpp"
#include "comm/messages.hpp"
#include "tests/scheduler/simulation/simulation.hpp"

namespace {

using namespace troupe;
using simulation::LinkWord;

enum Part : size_t { kStep, kLife, kView, kParts };
struct Sent {
  uint64_t messages = 0, bytes = 0;
};
using Traffic = std::vector<std::array<Sent, kParts>>;  // of each node

constexpr int64_t kSteps = 6;

Part part_of(const LinkWord& word) {
  const auto* membership = std::get_if<scheduler::MembershipMessage>(&word);
  if (membership == nullptr) return kStep;
  return std::holds_alternative<scheduler::Heartbeat>(*membership) ? kLife : kView;
}

// Members as long as real ones: the simulation's have short names and addresses.
void lengthen(scheduler::Member& member) {
  member.bulk_address = member.address = "192.168.100.100:40000";
  member.incarnation.assign(wire::kIncarnationBytes, 'i');
  member.host_id.assign(36, 'h');
}
LinkWord lengthened(LinkWord word) {
  if (auto* claim = std::get_if<scheduler::Claim>(&word)) claim->digest.assign(wire::kHashBytes, 'd');
  if (auto* membership = std::get_if<scheduler::MembershipMessage>(&word)) {
    if (auto* inventory = std::get_if<scheduler::Inventory>(membership)) {
      lengthen(inventory->member);
      inventory->digest.assign(wire::kHashBytes, 'd');
    }
    if (auto* join = std::get_if<scheduler::Join>(membership)) lengthen(join->member);
    if (auto* view = std::get_if<scheduler::View>(membership)) {
      for (scheduler::Member& member : view->members) lengthen(member);
      view->bulk_key.assign(wire::kHashBytes, 'k');
    }
  }
  return word;
}

// A view or a seal goes to everyone: its size is reckoned once.
class Scales {
 public:
  Scales() {
    auto services = std::make_shared<actors::NodeServices>();
    services->incarnation.assign(wire::kIncarnationBytes, 'i');
    context_.services = std::move(services);
    context_.job_id.assign(wire::kHashBytes, 'j');
  }
  uint64_t bytes_of(const LinkWord& word) {
    if (last_ && word.index() == last_->first.index() && is_for_all(word) && same(word, last_->first))
      return last_->second;
    const uint64_t bytes = std::visit(
        [&](const auto& one) { return uint64_t(wire::encode(*actors::to_wire(context_, one)).size()); },
        lengthened(word));
    if (is_for_all(word)) last_.emplace(word, bytes);
    return bytes;
  }

 private:
  static bool is_for_all(const LinkWord& word) {
    const auto* membership = std::get_if<scheduler::MembershipMessage>(&word);
    return std::holds_alternative<scheduler::Seal>(word) ||
           (membership != nullptr && std::holds_alternative<scheduler::View>(*membership));
  }
  static bool same(const LinkWord& a, const LinkWord& b) {
    if (const auto* seal = std::get_if<scheduler::Seal>(&a)) return *seal == std::get<scheduler::Seal>(b);
    return std::get<scheduler::View>(std::get<scheduler::MembershipMessage>(a)) ==
           std::get<scheduler::View>(std::get<scheduler::MembershipMessage>(b));
  }
  actors::JobContext context_;
  std::optional<std::pair<LinkWord, uint64_t>> last_;
};

struct Run {
  Traffic traffic;
  uint64_t events = 0;
  double seconds = 0;  // of the virtual clock
};

Run run(uint32_t nodes, std::vector<simulation::Fault> faults) {
  simulation::Scenario scenario;
  scenario.seed = 1;
  scenario.nodes = nodes;
  scenario.plan = {.training = nodes, .evaluation = 0, .evaluate_every = 0, .steps = kSteps};
  scenario.slot_us = 400'000;
  scenario.faults = std::move(faults);
  Run result;
  result.traffic.resize(nodes);
  Scales scales;
  simulation::Simulation simulation(scenario);
  simulation.observe([&](scheduler::Rank from, scheduler::Rank, const LinkWord& word) {
    Sent& sent = result.traffic[from][part_of(word)];
    ++sent.messages;
    sent.bytes += scales.bytes_of(word);
  });
  simulation.run();
  result.events = simulation.events();
  result.seconds = double(simulation.now()) * 1e-6;
  return result;
}

// Mean of the nodes but the leader, which is the first.
std::pair<double, double> mean_of_others(const Traffic& traffic, Part part) {
  double messages = 0, bytes = 0;
  for (size_t node = 1; node < traffic.size(); ++node) {
    messages += double(traffic[node][part].messages);
    bytes += double(traffic[node][part].bytes);
  }
  const auto others = double(traffic.size() - 1);
  return {messages / others, bytes / others};
}

void print(const char* what, std::pair<double, double> leader, std::pair<double, double> others) {
  std::printf("  %-28s%12.1f%14.0f%14.1f%14.0f\n", what, leader.first, leader.second, others.first,
              others.second);
}

void measure(uint32_t nodes) {
  const Run calm = run(nodes, {});
  simulation::Fault kill;
  kill.kind = simulation::FaultKind::kill;
  kill.node = nodes - 1;
  kill.at_event = calm.events * 2 / 3;
  kill.lasts_us = 3'600'000'000;
  const Run killed = run(nodes, {kill});

  std::printf("%u nodes\n", nodes);
  const auto row = [&](const char* what, const Run& of, Part part, double per) {
    const Sent& leader = of.traffic[0][part];
    const auto [messages, bytes] = mean_of_others(of.traffic, part);
    print(what, {double(leader.messages) / per, double(leader.bytes) / per}, {messages / per, bytes / per});
  };
  row("a step", calm, kStep, double(kSteps));
  row("a second", calm, kLife, calm.seconds);
  // What the run with a kill has said more than the one without, which had to form a first view as well.
  const auto more = [](const Sent& with, const Sent& without) {
    return std::pair(double(with.messages) - double(without.messages),
                     double(with.bytes) - double(without.bytes));
  };
  const auto with = mean_of_others(killed.traffic, kView), without = mean_of_others(calm.traffic, kView);
  print("a kill", more(killed.traffic[0][kView], calm.traffic[0][kView]),
        {with.first - without.first, with.second - without.second});
}

}  // namespace

int main(int argc, char** argv) try {
  std::vector<uint32_t> sizes;
  for (int i = 1; i < argc; ++i) sizes.push_back(uint32_t(std::stoul(argv[i])));
  if (sizes.empty()) sizes = {8, 64};
  if (std::any_of(sizes.begin(), sizes.end(),
                  [](uint32_t nodes) { return nodes < 3 || nodes > wire::kRanksMax; }))
    throw std::runtime_error("between 3 and 1024 nodes");
  std::printf("%-30s%12s%14s%14s%14s\n", "sent", "leader: msgs", "bytes", "others: msgs", "bytes");
  for (uint32_t nodes : sizes) measure(nodes);
  return 0;
} catch (const std::exception& problem) {
  std::fprintf(stderr, "membership_cost: %s; usage: membership_cost [NODES...]\n", problem.what());
  return 2;
}
