#include "data/sorter.hpp"

#include <algorithm>

#include "data/bytes.hpp"

namespace troupe::data {
namespace {
constexpr uint64_t kReadBytes = 128 << 10;  // of each run at a time while merging
constexpr size_t kHeadBytes = sizeof(SortKey) + sizeof(uint32_t);
}  // namespace

// A sorted range of the scratch file, read piece by piece.
class ExternalSorter::Run {
 public:
  Run(uint64_t begin, uint64_t end) : position_(begin), end_(end) {}

  const SortKey& key() const { return key_; }
  std::string_view payload() const { return std::string_view(buffer_).substr(at_ + kHeadBytes, bytes_); }

  // Moves to the first or the next record; false at the end of the run.
  bool advance(const ScratchFile& file) {
    at_ += started_ ? kHeadBytes + bytes_ : 0;
    started_ = true;
    if (at_ == buffer_.size() && position_ == end_) return false;
    require(kHeadBytes, file);
    uint32_t bytes = 0;
    std::memcpy(key_.data(), buffer_.data() + at_, sizeof(SortKey));
    std::memcpy(&bytes, buffer_.data() + at_ + sizeof(SortKey), sizeof bytes);
    bytes_ = bytes;
    require(kHeadBytes + bytes_, file);
    return true;
  }

 private:
  void require(size_t bytes, const ScratchFile& file) {
    if (buffer_.size() - at_ >= bytes) return;
    buffer_.erase(0, at_);
    at_ = 0;
    const uint64_t wanted = std::min(std::max<uint64_t>(kReadBytes, bytes), end_ - position_);
    buffer_ += file.read(position_, wanted);
    position_ += wanted;
    TROUPE_CHECK(buffer_.size() >= bytes);
  }

  uint64_t position_, end_;
  std::string buffer_;
  size_t at_ = 0, bytes_ = 0;
  bool started_ = false;
  SortKey key_{};
};

ExternalSorter::ExternalSorter(std::string folder, size_t run_bytes_max)
    : folder_(std::move(folder)), run_bytes_max_(run_bytes_max) {}
ExternalSorter::~ExternalSorter() = default;

void ExternalSorter::add(const SortKey& key, std::string_view payload) {
  TROUPE_CHECK(!merging_ && payload.size() <= UINT32_MAX);
  const size_t bytes = memory_.size() + payload.size() + (records_.size() + 1) * sizeof(Record);
  if (bytes > run_bytes_max_ && !records_.empty()) spill();
  records_.push_back({key, memory_.size(), payload.size()});
  memory_ += payload;
  ++size_;
}

void ExternalSorter::sort_memory() {
  std::sort(records_.begin(), records_.end(), [](const Record& a, const Record& b) { return a.key < b.key; });
}

void ExternalSorter::spill() {
  sort_memory();
  if (!scratch_) scratch_.emplace(folder_);
  const uint64_t begin = scratch_->size();
  ByteWriter writer;
  for (const Record& record : records_) {
    for (const uint64_t word : record.key) writer.put(word);
    writer.put_text(std::string_view(memory_).substr(record.offset, record.bytes));
    if (writer.size() < (1 << 20)) continue;
    scratch_->append(writer.bytes());
    writer.bytes().clear();
  }
  scratch_->append(writer.bytes());
  runs_.push_back(std::make_unique<Run>(begin, scratch_->size()));
  memory_.clear();
  records_.clear();
}

bool ExternalSorter::next(SortKey* key, std::string_view* payload) {
  const auto later = [](const auto& a, const auto& b) { return a->key() > b->key(); };
  if (!merging_) {
    merging_ = true;
    if (runs_.empty()) {
      sort_memory();
    } else {
      if (!records_.empty()) spill();
      std::string().swap(memory_);
      std::vector<Record>().swap(records_);
      for (auto& run : runs_) run->advance(*scratch_);
      std::make_heap(runs_.begin(), runs_.end(), later);
    }
  }
  if (!scratch_) {
    if (next_record_ == records_.size()) return false;
    const Record& record = records_[next_record_++];
    *key = record.key;
    *payload = std::string_view(memory_).substr(record.offset, record.bytes);
    return true;
  }
  if (runs_.empty()) return false;
  std::pop_heap(runs_.begin(), runs_.end(), later);
  Run& run = *runs_.back();
  *key = run.key();
  current_ = run.payload();
  *payload = current_;
  if (run.advance(*scratch_))
    std::push_heap(runs_.begin(), runs_.end(), later);
  else
    runs_.pop_back();
  return true;
}

}  // namespace troupe::data
