#include "model/checkpoint.hpp"

#include <algorithm>
#include <cctype>
#include <set>
#include <utility>
#include <vector>

#include "model/record.hpp"
#include "model/section_file.hpp"

namespace troupe::model {

namespace fs = std::filesystem;

namespace {

constexpr FileKind kCheckpoint{"TROUPECK", kRecordFormat, "checkpoint",
                               "use an older checkpoint of the run or another node's copy"};
constexpr const char* kPrefix = "checkpoint-";
constexpr const char* kSuffix = ".troupe";
constexpr const char* kPartial = ".troupe.partial";

void begin_array(SectionReader& reader, const char* tag, int64_t elements) {
  if (reader.begin_section(tag) != uint64_t(elements) * sizeof(float))
    reader.corrupt(fmt::format("the section \"{}\" does not hold {} numbers", tag, elements));
}

// The step in FOLDER/checkpoint-STEP-NODE.troupe (or with another suffix); nullopt: another file.
std::optional<int64_t> step_of(const fs::path& path, const char* suffix = kSuffix) {
  const std::string name = path.filename().string();
  if (!name.starts_with(kPrefix) || !name.ends_with(suffix)) return std::nullopt;
  int64_t step = 0;
  size_t at = std::string(kPrefix).size();
  const size_t first = at;
  for (; at < name.size() && std::isdigit(static_cast<unsigned char>(name[at])) != 0; ++at) {
    if (at - first >= 18) return std::nullopt;
    step = step * 10 + (name[at] - '0');
  }
  if (at == first || at >= name.size() || name[at] != '-') return std::nullopt;
  return step;
}

struct Found {
  int64_t step = 0;
  fs::path path;
};

// Newest first; the names of one step in alphabetical order.
std::vector<Found> checkpoints_in(const fs::path& folder) {
  std::vector<Found> found;
  std::error_code failed;
  fs::directory_iterator entries(folder, failed);
  if (failed) throw error(ErrorKind::file, "cannot list folder {}: {}", folder.string(), failed.message());
  for (const auto& entry : entries)
    if (const auto step = step_of(entry.path())) found.push_back({*step, entry.path()});
  std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
    return a.step != b.step ? a.step > b.step : a.path < b.path;
  });
  return found;
}

void verify_checkpoint(const fs::path& path) {
  SectionReader reader(kCheckpoint, path, true);
  CheckpointInfo info;
  TrainState state;
  read_record(reader, info, state);
  for (const char* tag : {"weights", "moment1", "moment2"}) {
    begin_array(reader, tag, state.elements);
    reader.check_section();
  }
  reader.finish();
}

}  // namespace

fs::path checkpoint_path(const fs::path& folder, int64_t step, const std::string& node) {
  return folder / fmt::format("{}{:010}-{}{}", kPrefix, step, node, kSuffix);
}

void save_checkpoint(const fs::path& path, const CheckpointInfo& info, const TrainState& state) {
  const std::string record = encode_record(info, state);
  const uint64_t bytes = uint64_t(state.elements) * sizeof(float);
  SectionWriter writer(kCheckpoint, path, SectionWriter::file_bytes(record.size() + 3 * bytes, 4));
  writer.section("record", record.data(), record.size());
  writer.section("weights", state.weights.data(), bytes);
  writer.section("moment1", state.moment1.data(), bytes);
  writer.section("moment2", state.moment2.data(), bytes);
  writer.finish();
}

Checkpoint load_checkpoint(const fs::path& path, kernels::Backend& backend) {
  SectionReader reader(kCheckpoint, path, true);
  CheckpointInfo info;
  TrainState state;
  read_record(reader, info, state);
  const size_t bytes = size_t(state.elements) * sizeof(float);
  for (kernels::Buffer* array : {&state.weights, &state.moment1, &state.moment2})
    *array = backend.allocate(bytes);
  for (const auto& [tag, array] : {std::pair<const char*, float*>{"weights", state.weight_data()},
                                   {"moment1", state.moment1_data()},
                                   {"moment2", state.moment2_data()}}) {
    begin_array(reader, tag, state.elements);
    reader.read_section(array);
  }
  reader.finish();
  return {std::move(info), std::move(state)};
}

Checkpoint load_record(const fs::path& path) {
  SectionReader reader(kCheckpoint, path, false);
  Checkpoint checkpoint;
  read_record(reader, checkpoint.info, checkpoint.state);
  return checkpoint;
}

SavedWeights load_weights_only(const fs::path& path, kernels::Backend& backend) {
  SectionReader reader(kCheckpoint, path, false);
  SavedWeights saved;
  TrainState counters;
  read_record(reader, saved.info, counters);
  saved.step = counters.step;
  begin_array(reader, "weights", counters.elements);
  saved.weights = backend.allocate(size_t(counters.elements) * sizeof(float));
  reader.read_section(saved.weights.data());
  reader.check_rest(2 * uint64_t(counters.elements) * sizeof(float), 2);  // the moments
  return saved;
}

std::optional<fs::path> latest_checkpoint(const fs::path& path, const Warn& warn) {
  std::error_code failed;
  const fs::file_status there = fs::status(path, failed);
  if (!fs::status_known(there))
    throw error(ErrorKind::file, "cannot look for a checkpoint at {}: {}; check the path and its permissions",
                path.string(), failed.message());
  if (!fs::is_directory(there)) {
    if (fs::exists(there)) return path;
    throw error(ErrorKind::file, "there is no file or folder {}", path.string());
  }
  CheckpointsFound found = find_checkpoints(path);
  for (const Error& reason : found.passed_over)
    if (warn) warn(fmt::format("skipped: {}", reason.what()));
  return std::move(found.newest);
}

CheckpointsFound find_checkpoints(const fs::path& folder) {
  CheckpointsFound all;
  for (const Found& found : checkpoints_in(folder)) {
    try {
      verify_checkpoint(found.path);
      all.newest = found.path;
      break;
    } catch (const Error& reason) {
      all.passed_over.push_back(reason);
    }
  }
  return all;
}

void prune_checkpoints(const fs::path& folder, int keep, int64_t newest) {
  TROUPE_CHECK(keep >= 1);
  std::set<int64_t> kept;
  std::error_code ignored;  // what cannot be removed now goes the next time
  for (const Found& found : checkpoints_in(folder)) {
    if (found.step > newest) continue;
    if (kept.size() < size_t(keep)) kept.insert(found.step);
    if (!kept.contains(found.step)) fs::remove(found.path, ignored);
  }
  if (kept.empty()) return;
  std::vector<fs::path> unfinished;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (const auto step = step_of(entry.path(), kPartial); step && *step < *kept.begin())
      unfinished.push_back(entry.path());
  for (const fs::path& path : unfinished) SectionWriter::remove_if_abandoned(path);
}

}  // namespace troupe::model
