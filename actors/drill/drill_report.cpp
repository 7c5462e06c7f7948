#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "actors/drill/drill.hpp"

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
      .dump(2);
}

}  // namespace troupe::drill
