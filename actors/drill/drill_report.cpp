#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "actors/drill/drill.hpp"
#include "actors/ledger.hpp"

namespace troupe::drill {

namespace {

// By nearest rank. REQUIRES values.
double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[size_t(q * double(values.size() - 1) + 0.5)];
}

struct Times {
  size_t count = 0;
  std::vector<double> noticed, resumed;
};

std::map<std::string, Times> by_kind(const DrillResult& result) {
  std::map<std::string, Times> kinds;
  for (const Outcome& outcome : result.outcomes) {
    if (!outcome.injected) continue;
    Times& times = kinds[std::string(name_of(outcome.fault.kind))];
    ++times.count;
    if (outcome.noticed_ms >= 0) times.noticed.push_back(outcome.noticed_ms);
    if (outcome.resumed_ms >= 0) times.resumed.push_back(outcome.resumed_ms);
  }
  return kinds;
}

}  // namespace

void read_times(const std::string& out, DrillResult& result) {
  std::map<int64_t, int64_t> first;  // step -> when a node had committed it first
  std::set<scheduler::Ballot> views;
  for (const actors::LedgerFile& file : actors::read_ledgers(out))
    for (const actors::LedgerRecord& record : file.records) {
      const auto [at, fresh] = first.try_emplace(record.step, record.committed_us);
      if (!fresh) at->second = std::min(at->second, record.committed_us);
      views.insert(record.view);
    }
  result.views = views.size();
  for (int64_t step = 0; step < result.steps; ++step) result.steps_lost += first.contains(step) ? 0 : 1;
  std::vector<int64_t> times, gaps;
  for (const auto& [step, at] : first) times.push_back(at);
  std::sort(times.begin(), times.end());
  for (size_t i = 1; i < times.size(); ++i) gaps.push_back(times[i] - times[i - 1]);
  if (!gaps.empty()) {
    std::nth_element(gaps.begin(), gaps.begin() + std::ptrdiff_t(gaps.size() / 2), gaps.end());
    result.step_ms = double(gaps[gaps.size() / 2]) * 1e-3;
  }
  for (Outcome& outcome : result.outcomes) {
    const auto next = std::upper_bound(times.begin(), times.end(), outcome.unix_us);
    if (next != times.end() && outcome.injected) outcome.resumed_ms = double(*next - outcome.unix_us) * 1e-3;
  }
}

std::string to_text(const DrillResult& result) {
  std::string out = fmt::format("{:<12}{:>7}{:>16}{:>16}{:>16}{:>16}\n", "fault", "count", "noticed ms",
                                "99 %", "next step ms", "99 %");
  for (const auto& [kind, times] : by_kind(result)) {
    out += fmt::format("{:<12}{:>7}", kind, times.count);
    for (const auto* values : {&times.noticed, &times.resumed})
      out += values->empty()
                 ? fmt::format("{:>16}{:>16}", "-", "-")
                 : fmt::format("{:>16.1f}{:>16.1f}", quantile(*values, 0.5), quantile(*values, 0.99));
    out += "\n";
  }
  out += fmt::format("{} steps in {:.1f} s, {} views; a step takes {:.1f} ms (median)\n", result.steps,
                     result.seconds, result.views, result.step_ms);
  if (result.pieces_corrupted > 0)
    out += fmt::format("{} pieces were damaged on the wire\n", result.pieces_corrupted);
  out += fmt::format("{} steps lost; {}\n", result.steps_lost,
                     result.ledger_problem.empty()
                         ? fmt::format("{} samples, each counted once an epoch", result.samples)
                         : result.ledger_problem);
  out += fmt::format("weights      {}\nundisturbed  {}\n{}\n", result.digest, result.expected_digest,
                     result.same_bits() ? "the same bits" : "NOT what the undisturbed run gives");
  if (result.faults_missed > 0)
    out += fmt::format(
        "{} faults of the plan were NOT injected: the job ended first, or the time line says why\n",
        result.faults_missed);
  return out;
}

std::string to_json(const DrillResult& result) {
  nlohmann::ordered_json faults = nlohmann::ordered_json::array();
  for (const Outcome& outcome : result.outcomes)
    faults.push_back({{"kind", name_of(outcome.fault.kind)},
                      {"node", outcome.fault.node},
                      {"step", outcome.step},
                      {"at_s", outcome.at_s},
                      {"lasts_ms", outcome.fault.lasts_ms},
                      {"injected", outcome.injected},
                      {"detail", outcome.detail},
                      {"noticed_ms", outcome.noticed_ms},
                      {"resumed_ms", outcome.resumed_ms}});
  return nlohmann::ordered_json{{"passed", result.passed()},
                                {"steps", result.steps},
                                {"seconds", result.seconds},
                                {"step_ms", result.step_ms},
                                {"views", result.views},
                                {"steps_lost", result.steps_lost},
                                {"samples", result.samples},
                                {"ledger_problem", result.ledger_problem},
                                {"pieces_corrupted", result.pieces_corrupted},
                                {"faults_missed", result.faults_missed},
                                {"digest", result.digest},
                                {"expected_digest", result.expected_digest},
                                {"faults", faults}}
      .dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace troupe::drill
