#include "actors/drill/plan.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "actors/config/reader.hpp"
#include "kernels/base/error.hpp"

namespace troupe::drill {

namespace {

constexpr std::array kNames = {"kill", "terminate", "stop", "partition", "delay",
                               "loss", "corrupt",   "flip", "disk_full", "clock_jump"};

std::vector<config::Choice> choices() {
  std::vector<config::Choice> all;
  for (const FaultKind kind : all_kinds()) all.push_back({name_of(kind), int64_t(kind)});
  return all;
}

// Not std::uniform_int_distribution, whose numbers differ between libraries.
int64_t pick(std::mt19937_64& random, int64_t least, int64_t most) {
  return least + int64_t(random() % uint64_t(most - least + 1));
}

int64_t duration_of(FaultKind kind, std::mt19937_64& random) {
  switch (kind) {
    case FaultKind::stop:
    case FaultKind::partition:  // some shorter than the patience, some longer
      return pick(random, 500, 6000);
    case FaultKind::kill:
    case FaultKind::terminate:
      return pick(random, 0, 300);
    default:
      return pick(random, 200, 1500);
  }
}

}  // namespace

std::string_view name_of(FaultKind kind) {
  return kNames.at(size_t(kind) - 1);
}

const std::vector<FaultKind>& all_kinds() {
  static const std::vector<FaultKind> all = [] {
    std::vector<FaultKind> kinds;
    for (size_t i = 0; i < kNames.size(); ++i) kinds.push_back(FaultKind(i + 1));
    return kinds;
  }();
  return all;
}

bool is_of_the_network(FaultKind kind) {
  return kind == FaultKind::partition || kind == FaultKind::delay || kind == FaultKind::loss ||
         kind == FaultKind::corrupt;
}

bool lasts(FaultKind kind) {
  return kind != FaultKind::flip && kind != FaultKind::clock_jump;
}

FaultKind kind_of(std::string_view name) {
  for (const FaultKind kind : all_kinds())
    if (name == name_of(kind)) return kind;
  throw error(ErrorKind::usage, "there is no fault \"{}\"; there are {}", name, fmt::join(kNames, ", "));
}

bool Plan::needs_proxies() const {
  return std::any_of(faults.begin(), faults.end(), [](const Fault& f) { return is_of_the_network(f.kind); });
}

Plan read_plan(const std::string& path, const std::set<std::string>& nodes) {
  const std::string text = config::read_text_file(path);
  Plan plan;
  config::read_toml(path, text, [](config::FieldVisitor&) {}, {"faults"});
  config::read_tables(path, text, "faults", [&](size_t index) -> config::Describe {
    plan.faults.resize(index + 1);
    return [&plan, index](config::FieldVisitor& v) {
      Fault& fault = plan.faults[index];
      v.pick("kind", fault.kind, choices());
      v.text("node", fault.node);
      v.number("at_step", fault.at_step, {-1, 1e12});
      v.number("after_ms", fault.after_ms, {0, 1e9});
      v.number("lasts_ms", fault.lasts_ms, {0, 1e9});
      v.number("delay_ms", fault.delay_ms, {0.01, 60'000});
    };
  });
  if (plan.faults.empty()) throw error(ErrorKind::usage, "{}: no [[faults]] entry", path);
  for (size_t i = 0; i < plan.faults.size(); ++i)
    if (!nodes.contains(plan.faults[i].node))
      throw error(ErrorKind::usage, "{}: faults[{}].node is \"{}\"; it must be one of {}", path, i,
                  plan.faults[i].node, fmt::join(nodes, ", "));
  return plan;
}

Plan random_plan(uint64_t seed, size_t faults, const std::vector<FaultKind>& kinds,
                 const std::vector<std::string>& nodes) {
  std::mt19937_64 random(seed * 0x9E3779B97F4A7C15u + 1);
  Plan plan;
  for (size_t i = 0; i < faults; ++i) {
    Fault fault;
    fault.kind = kinds[size_t(pick(random, 0, int64_t(kinds.size()) - 1))];
    fault.node = nodes[size_t(pick(random, 0, int64_t(nodes.size()) - 1))];
    fault.after_ms = pick(random, 20, 400);
    fault.lasts_ms = duration_of(fault.kind, random);
    plan.faults.push_back(fault);
  }
  return plan;
}

}  // namespace troupe::drill
