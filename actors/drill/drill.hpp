// `troupe drill`: a job on a local cluster, faults injected into it from a plan or a seed, and the proof that
// they did no harm: the final weights against those of an undisturbed one-process run, the ledger, and a time
// line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/config/job.hpp"
#include "actors/drill/plan.hpp"

namespace troupe::drill {

struct DrillOptions {
  config::JobConfig job;
  std::string data, out;
  int64_t nodes = 3;
  int64_t threads = 1;
  std::vector<std::string> devices;  // of the nodes, in turn; none: the CPU
  Plan plan;
  uint64_t seed = 1;       // of what the network's faults and flipped bits hit
  bool whole_job = false;  // to the job's last step; else it is stopped when the plan is done
  std::string program;
};

// One fault, and what came of it. Times in ms after it was injected; -1: not seen.
struct Outcome {
  Fault fault;
  int64_t step = 0;        // that was being computed
  double at_s = 0;         // since training began
  int64_t unix_us = 0;     // when it was injected
  std::string detail;      // what was hit
  bool injected = false;   // else `detail` says why not
  double noticed_ms = -1;  // first word of any node about it
  double resumed_ms = -1;  // the next step was committed
};

struct DrillResult {
  std::vector<Outcome> outcomes;
  int64_t steps = 0;
  double seconds = 0;
  double step_ms = 0;  // median between commits
  uint64_t views = 0;
  int64_t steps_lost = 0;
  uint64_t samples = 0;
  std::string digest, expected_digest;
  std::string ledger_problem;     // empty: every sample was counted once
  uint64_t pieces_corrupted = 0;  // by the network
  size_t faults_missed = 0;       // of the plan, not injected: the job ended first, or their outcome says why
  bool same_bits() const { return digest == expected_digest && ledger_problem.empty() && steps_lost == 0; }
  bool passed() const { return same_bits() && faults_missed == 0; }
};

// Progress on standard error. Throws Error when the job fails.
DrillResult run_drill(const DrillOptions& options);

// What the ledgers in the run's folder tell: when steps were committed, and that none is missing.
void read_times(const std::string& out, DrillResult& result);
std::string to_text(const DrillResult& result);
std::string to_json(const DrillResult& result);

}  // namespace troupe::drill
