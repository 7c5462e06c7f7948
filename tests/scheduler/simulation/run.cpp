// simulate [--seeds N] [--first S] [--threads T] [--table]: runs N scenarios. A seed that breaks an invariant
// is shrunk to the fewest faults that still break it, and printed. --table shows which part of which role was
// crossed with which fault.
#include <cstdio>
#include <iostream>
#include <mutex>
#include <thread>

#include "tests/scheduler/simulation/simulation.hpp"

using namespace troupe::simulation;

namespace {

std::optional<std::string> failure_of(const Scenario& scenario, Crossings* crossings, uint64_t* views) {
  try {
    Simulation simulation(scenario);
    simulation.run();
    if (crossings)
      for (const auto& [key, count] : simulation.crossings()) (*crossings)[key] += count;
    if (views) *views += simulation.views();
    return std::nullopt;
  } catch (const std::exception& broken) {
    return broken.what();
  }
}

void shrink(Scenario& scenario) {
  for (bool smaller = true; smaller;) {
    smaller = false;
    for (size_t i = 0; i < scenario.faults.size() && !smaller; ++i) {
      Scenario less = scenario;
      less.faults.erase(less.faults.begin() + std::ptrdiff_t(i));
      if (!failure_of(less, nullptr, nullptr)) continue;
      scenario = less;
      smaller = true;
    }
  }
}

// Returns whether no cell is empty.
bool print_table(const Crossings& crossings) {
  bool full = true;
  std::map<std::string, std::map<FaultKind, uint64_t>> rows;
  for (const auto& [key, count] : crossings) rows[key.first][key.second] = count;
  std::printf("%-20s", "");
  for (size_t kind = 0; kind < size_t(FaultKind::count); ++kind)
    std::printf("%10s", name_of(FaultKind(kind)));
  for (const auto& [row, counts] : rows) {
    std::printf("\n%-20s", row.c_str());
    for (size_t kind = 0; kind < size_t(FaultKind::count); ++kind) {
      const auto found = counts.find(FaultKind(kind));
      full = full && found != counts.end();
      std::printf("%10llu", static_cast<unsigned long long>(found == counts.end() ? 0 : found->second));
    }
  }
  std::printf("\n");
  return full;
}

struct Totals {
  std::mutex mutex;
  Crossings crossings;
  uint64_t views = 0;
  std::optional<uint64_t> failed;  // the lowest seed
};

// Every `stride`-th seed from `seed` on.
void run_seeds(uint64_t seed, uint64_t end, uint64_t stride, Totals& totals) {
  Crossings crossings;
  uint64_t views = 0;
  for (; seed < end; seed += stride) {
    if (!failure_of(make_scenario(seed), &crossings, &views)) continue;
    const std::lock_guard lock(totals.mutex);
    totals.failed = std::min(seed, totals.failed.value_or(seed));
    break;
  }
  const std::lock_guard lock(totals.mutex);
  totals.views += views;
  for (const auto& [key, count] : crossings) totals.crossings[key] += count;
}

int report(uint64_t seed) {
  Scenario scenario = make_scenario(seed);
  const size_t before = scenario.faults.size();
  shrink(scenario);
  std::cerr << "seed " << seed << ", " << scenario.nodes << " nodes, " << scenario.plan.training << " slots, "
            << scenario.plan.steps << " steps" << (scenario.quorum ? ", with quorum" : "") << "; shrunk from "
            << before << " faults to " << scenario.faults.size() << ":\n";
  for (const Fault& fault : scenario.faults) std::cerr << "  " << fault.text() << "\n";
  std::cerr << failure_of(scenario, nullptr, nullptr).value_or("it does not fail again") << "\n";
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t seeds = 1'000, first = 0, threads = 1;
  bool table = false;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option == "--table") {
      table = true;
    } else if (i + 1 < argc && (option == "--seeds" || option == "--first" || option == "--threads")) {
      (option == "--seeds" ? seeds : option == "--first" ? first : threads) = std::stoull(argv[++i]);
    } else {
      std::cerr << "simulate: unknown option " << option
                << "; usage: simulate [--seeds N] [--first S] [--threads T] [--table]\n";
      return 2;
    }
  }
  Totals totals;
  std::vector<std::thread> workers;
  for (uint64_t i = 0; i < threads; ++i)
    workers.emplace_back(run_seeds, first + i, first + seeds, threads, std::ref(totals));
  for (std::thread& worker : workers) worker.join();
  if (totals.failed) return report(*totals.failed);
  std::cout << seeds << " seeds, " << totals.views << " views, no invariant broken\n";
  if (table && !print_table(totals.crossings)) {
    std::cerr << "some part was never crossed with some fault: simulate more seeds\n";
    return 1;
  }
  return 0;
}
