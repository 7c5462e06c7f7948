#include <algorithm>
#include <set>
#include <utility>

#include "actors/job_context.hpp"
#include "actors/ledger.hpp"
#include "kernels/base/error.hpp"

namespace troupe::actors {

namespace {

using Records = std::map<int64_t, LedgerRecord>;

[[noreturn]] void wrong(int64_t step, const std::string& what) {
  throw error(ErrorKind::corrupt, "the ledger is wrong at step {}: {}", step, what);
}

// A last line without its end is what a crash leaves; the step will be recorded again. Any other bad line is
// damage.
LedgerFile read_file(const std::filesystem::path& path) {
  LedgerFile file{path.stem().string(), {}};
  std::ifstream in(path);
  if (!in) throw error(ErrorKind::file, "cannot read {}", path.string());
  int64_t number = 0;
  for (std::string line; std::getline(in, line) && !in.eof();) {
    ++number;
    try {
      file.records.push_back(parse_line(line));
    } catch (const Error& problem) {
      throw error(ErrorKind::corrupt, "line {} of {} is damaged: {}", number, path.string(), problem.what());
    }
  }
  return file;
}

// One record a step: the nodes' must agree.
Records unite(std::vector<LedgerFile> files) {
  Records records;
  for (LedgerFile& file : files)
    for (LedgerRecord& record : file.records) {
      const auto [first, fresh] =
          records.try_emplace(record.step, std::move(record));  // which stays if not fresh
      const LedgerRecord& other = first->second;
      if (fresh) continue;
      if (other.packs != record.packs || other.target_tokens != record.target_tokens ||
          other.skipped != record.skipped || other.chain != record.chain)
        wrong(record.step, fmt::format("{} and another node's ledger disagree", file.node));
    }
  return records;
}

}  // namespace

std::vector<LedgerFile> read_ledgers(const std::filesystem::path& out) {
  std::vector<LedgerFile> files;
  const std::filesystem::path folder = out / "ledger";
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none))
    if (entry.path().extension() == ".jsonl") files.push_back(read_file(entry.path()));
  const bool empty =
      std::all_of(files.begin(), files.end(), [](const auto& file) { return file.records.empty(); });
  if (empty)
    throw error(ErrorKind::file, "{} holds no ledger; name the --out folder of a training run",
                folder.string());
  return files;
}

namespace {

void check_slots(const LedgerRecord& record, const scheduler::SlotPlan& plan) {
  scheduler::SlotSet all;
  for (const auto& [node, slots] : record.computed_by) {
    if (!all.disjoint(slots))
      wrong(record.step, fmt::format("a slot of {} was counted for another node too", node));
    all = all | slots;
  }
  // A job evaluates after its last step, from which a longer one may have gone on.
  const scheduler::SlotSet evaluated = scheduler::SlotSet::first(plan.training + plan.evaluation);
  if (all == evaluated) return;
  const scheduler::SlotSet every = scheduler::SlotSet::first(plan.slots(record.step));
  if (const auto missing = (every - all).lowest())
    wrong(record.step, fmt::format("slot {} was not counted", *missing));
  if (const auto extra = (all - every).lowest())
    wrong(record.step, fmt::format("there is no slot {}", *extra));
}

// Counts samples epoch by epoch. Packs are dealt out by one running number, so at most one epoch is open at a
// time.
class Epochs {
 public:
  explicit Epochs(const data::Dataset& dataset) : dataset_(dataset) {}

  void add(int64_t step, uint64_t pack) {
    packs_.push_back({step, pack});
    for (uint64_t id : dataset_.sample_ids(data::Split::train, pack)) seen_.push_back(id);
    if (packs_.size() < dataset_.packs(data::Split::train)) return;
    const uint64_t counted = seen_.size(), all = dataset_.samples(data::Split::train);
    check_distinct();
    if (counted != all)
      wrong(step, fmt::format("epoch {} ended with {} samples of {}", whole_, counted, all));
    ++whole_;
  }
  // After the last step.
  void finish() { check_distinct(); }
  uint64_t samples() const { return samples_; }

 private:
  struct Pack {
    int64_t step;
    uint64_t pack;
  };

  void check_distinct() {
    std::sort(seen_.begin(), seen_.end());
    const auto twice = std::adjacent_find(seen_.begin(), seen_.end());
    if (twice != seen_.end()) name_second(*twice);
    samples_ += seen_.size();
    seen_.clear();
    packs_.clear();
  }
  [[noreturn]] void name_second(uint64_t sample) const {
    bool seen = false;
    for (const Pack& pack : packs_)
      for (uint64_t id : dataset_.sample_ids(data::Split::train, pack.pack))
        if (id == sample && std::exchange(seen, true))
          wrong(pack.step, fmt::format("sample {} is counted a second time in epoch {}", id, whole_));
    TROUPE_CHECK(false, "sample {} is not there twice", sample);
  }

  const data::Dataset& dataset_;
  std::vector<Pack> packs_;     // of the open epoch
  std::vector<uint64_t> seen_;  // its samples
  uint64_t whole_ = 0, samples_ = 0;
};

}  // namespace

LedgerSummary verify_ledger(const std::filesystem::path& out, const config::JobConfig& job,
                            const data::Dataset& dataset) {
  const Records records = unite(read_ledgers(out));
  const scheduler::SlotPlan plan = slot_plan(job);
  LedgerSummary summary;
  std::set<scheduler::Ballot> views;
  Epochs epochs(dataset);
  for (const auto& [step, record] : records) {
    if (step != summary.steps) wrong(summary.steps, "it has no record");
    check_slots(record, plan);
    if (record.packs.size() != plan.training)
      wrong(step, fmt::format("it names {} packs", record.packs.size()));
    for (uint32_t slot = 0; slot < plan.training; ++slot) {
      const uint64_t pack = dataset.slot_pack(uint64_t(job.seed), uint64_t(step), slot, plan.training);
      if (record.packs[slot] != pack)
        wrong(step, fmt::format("slot {} was pack {}, but the job says {}", slot, record.packs[slot], pack));
      epochs.add(step, pack);
    }
    for (const auto& [node, slots] : record.computed_by) summary.slots[node] += slots.count();
    views.insert(record.view);
    summary.skipped += record.skipped ? 1 : 0;
    summary.chain = record.chain;
    ++summary.steps;
  }
  epochs.finish();
  summary.views = views.size();
  summary.samples = epochs.samples();
  summary.epochs = dataset.epoch_of_step(uint64_t(summary.steps), plan.training);
  return summary;
}

}  // namespace troupe::actors
