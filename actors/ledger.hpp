// The ledger of a training job: one record a step of what was counted: its slots and their packs of samples,
// which node computed which, in which view, and the digest chain after it. Each node appends its own file,
// OUT/ledger/NODE.jsonl: one JSON object a line with a checksum of its own. All but the view, who computed
// what and when is a pure function of the job, so the files of a job's nodes agree.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/config/job.hpp"
#include "data/dataset.hpp"
#include "scheduler/protocol.hpp"

namespace troupe::actors {

struct LedgerRecord {
  int64_t step = 0;
  scheduler::Ballot view;
  std::map<std::string, scheduler::SlotSet> computed_by;  // node name -> slots, held-out ones included
  std::vector<uint64_t> packs;                            // of each training slot, in order
  int64_t target_tokens = 0;
  bool skipped = false;      // counted, but nothing was learned from it
  std::string chain;         // hex, of x(step + 1)
  int64_t committed_us = 0;  // by this node's clock, since 1970
  bool operator==(const LedgerRecord&) const = default;
};

// One line, without its end. parse throws Error(corrupt) that says what is wrong with the line.
std::string to_line(const LedgerRecord& record);
LedgerRecord parse_line(const std::string& line);

// "0-3,6,9-10", and back. Throws Error(corrupt).
std::string to_ranges(const scheduler::SlotSet& slots);
scheduler::SlotSet from_ranges(const std::string& text);

std::filesystem::path ledger_path(const std::filesystem::path& out, const std::string& node);

// What has been appended to the file survives a loss of power then; nothing when there is no file. Throws
// Error(file).
void sync_ledger(const std::filesystem::path& path);

// The first step from 0 on that the file has no record of; 0 when there is no file.
int64_t ledger_complete_until(const std::filesystem::path& path);
// Adds to the file the records of `other` that it lacks, in the order of their steps; they survive a loss of
// power then. Throws Error(file); then the file is what it was, unless only its folder could not be synced.
// REQUIRES that no LedgerWriter has it open.
void merge_ledger(const std::filesystem::path& path, const std::filesystem::path& other);

// The lines of the steps first <= step < end of a file, as far as it has them: where they are, not what they
// say. It holds the file open, so they stay what they were when others are merged in. One thread.
class LedgerRange {
 public:
  // None when the file has not come to end - 1.
  static std::optional<LedgerRange> find(const std::filesystem::path& path, int64_t first, int64_t end);
  uint64_t bytes() const { return bytes_; }
  // Those from `at` on, at most bytes_max. Throws Error(file).
  std::string read(uint64_t at, size_t bytes_max);

 private:
  LedgerRange(std::ifstream in, uint64_t begin, uint64_t bytes)
      : in_(std::move(in)), begin_(begin), bytes_(bytes) {}

  std::ifstream in_;
  uint64_t begin_ = 0, bytes_ = 0;
};

// Appends to one file. One thread at a time.
class LedgerWriter {
 public:
  // Keeps the records of steps below `step`, from where the job goes on, and cuts off what comes after them
  // and a line that a crash left half written. Throws Error(file).
  LedgerWriter(const std::filesystem::path& path, int64_t step);
  void append(const LedgerRecord& record);

 private:
  std::filesystem::path path_;
  std::ofstream out_;
};

struct LedgerSummary {
  int64_t steps = 0;
  int64_t skipped = 0;
  uint64_t views = 0;
  uint64_t samples = 0;  // counted, over all epochs
  double epochs = 0;
  std::string chain;                      // after the last step
  std::map<std::string, uint64_t> slots;  // a node
};

// Proves from the ledgers of all nodes in `out` that every step from the first to the last was counted, each
// of its slots once, with the packs that the job says, and that no sample was counted twice in an epoch nor
// left out of a whole one. Throws Error(corrupt) with the step, slot or sample that is wrong, Error(file)
// when there is no ledger.
struct LedgerFile {
  std::string node;
  std::vector<LedgerRecord> records;
};
// Those of all nodes in `out`. Throws what verify_ledger throws for files that are missing or damaged.
std::vector<LedgerFile> read_ledgers(const std::filesystem::path& out);

LedgerSummary verify_ledger(const std::filesystem::path& out, const config::JobConfig& job,
                            const data::Dataset& dataset);

}  // namespace troupe::actors
