#include "actors/roles/dataset_repair.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <spdlog/spdlog.h>

#include "data/repair.hpp"
#include "kernels/base/error.hpp"

namespace troupe::actors {

namespace {

constexpr scheduler::Microseconds kPatienceUs = 20'000'000;  // for anyone to have a file

}  // namespace

DatasetRepair::DatasetRepair(Options options, std::vector<data::FileEntry> lacking,
                             scheduler::Microseconds now_us)
    : options_(std::move(options)), lacking_(std::move(lacking)), looked_us_(now_us) {
  begin_file(now_us);
}

DatasetRepair::~DatasetRepair() {
  if (!whole()) remove_part();
}

// Only when there is something to put into it.
void DatasetRepair::make_folder() const {
  std::error_code failed;
  std::filesystem::create_directories(options_.folder, failed);
  if (failed)
    throw error(ErrorKind::file, "{}; and {} cannot be made: {}", options_.problem, options_.folder,
                failed.message());
}

bool DatasetRepair::lacks(const std::string& file) const {
  return std::any_of(lacking_.begin(), lacking_.end(), [&](const auto& entry) { return entry.name == file; });
}

std::string DatasetRepair::part_path() const {
  return fmt::format("{}/.{}.{}.part", options_.folder, lacking_.front().name, options_.node);
}

void DatasetRepair::remove_part() const {
  std::error_code none;
  std::filesystem::remove(part_path(), none);
}

void DatasetRepair::begin_file(scheduler::Microseconds now_us) {
  absent_.clear();
  one_by_one_.clear();
  heard_us_ = now_us;
  if (!lacking_.front().sha256.empty() && lacking_.front().bytes == 0) {  // nobody is needed for that
    make_folder();
    std::ofstream(part_path(), std::ios::trunc);
    return finish_file(now_us);
  }
  std::vector<scheduler::Rank> all;
  for (const auto& [rank, name] : options_.others) all.push_back(rank);
  blob_.begin(std::move(all), part_path());
}

std::vector<DatasetRepair::Question> DatasetRepair::due(scheduler::Microseconds now_us) {
  std::vector<Question> questions;
  if (whole()) return questions;
  forgive_pause(now_us);
  give_up_if_due(now_us);
  for (const auto& [giver, index] : blob_.due(now_us))
    questions.push_back({giver, lacking_.front().name, index});
  return questions;
}

void DatasetRepair::take(scheduler::Rank from, const wire::Piece& piece, scheduler::Microseconds now_us) {
  if (whole() || piece.name() != lacking_.front().name || !blob_.has_giver(from)) return;
  forgive_pause(now_us);
  blob_.hear(from, now_us);
  if (!piece.absent().empty()) {
    absent_[from] = piece.absent();
    blob_.drop_giver(from);
    return give_up_if_due(now_us);
  }
  heard_us_ = now_us;
  if (piece.blob_bytes() == 0)
    return;  // it is not that far itself: it reads its own files, or takes them too
  make_folder();
  blob_.take(from, piece);
  if (blob_.whole()) finish_file(now_us);
}

void DatasetRepair::finish_file(scheduler::Microseconds now_us) {
  const data::FileEntry file = lacking_.front();
  if (!data::adopt_file(options_.folder, file, part_path())) return blame_givers(now_us);
  spdlog::warn("{}/{} was taken from another node", options_.folder, file.name);
  if (file.sha256.empty())  // a manifest says what else there should be
    lacking_ = data::lacking_files(options_.folder);
  else
    lacking_.erase(lacking_.begin());
  if (!whole()) begin_file(now_us);
}

// Several have given together what is not the file: each is asked alone, then.
void DatasetRepair::blame_givers(scheduler::Microseconds now_us) {
  if (one_by_one_.empty()) {
    one_by_one_ = blob_.givers();
  } else {
    absent_[one_by_one_.back()] = "what it gives is damaged";
    one_by_one_.pop_back();
  }
  if (one_by_one_.empty()) give_up();
  heard_us_ = now_us;
  blob_.begin({one_by_one_.back()}, part_path());
}

// When this very process stood still, perhaps with all others of its machine, nobody can be blamed for the
// silence.
void DatasetRepair::forgive_pause(scheduler::Microseconds now_us) {
  if (now_us - looked_us_ > kPatienceUs / 2) heard_us_ = now_us;
  looked_us_ = now_us;
}

// Everybody who is to be there has said that they have not got it, or nobody says anything.
void DatasetRepair::give_up_if_due(scheduler::Microseconds now_us) const {
  const bool nobody = std::all_of(
      options_.awaited.begin(), options_.awaited.end(),
      [&](scheduler::Rank rank) { return !options_.others.contains(rank) || absent_.contains(rank); });
  if ((nobody && !blob_.begun()) || now_us - heard_us_ > kPatienceUs) give_up();
}

void DatasetRepair::give_up() const {
  std::string who;
  for (const auto& [rank, why] : absent_)
    who += fmt::format("{}{}: {}", who.empty() ? "" : "; ", options_.others.at(rank), why);
  remove_part();
  throw error(ErrorKind::file, "{}. No other node has a whole {} to give ({})", options_.problem,
              lacking_.front().name, who.empty() ? "none has answered" : who);
}

}  // namespace troupe::actors
