// The totals R of consecutive steps, kept for those who follow: with the state before the first of them, they
// give every later state. The newest are in memory, those before them in files, and the oldest go when there
// are too many bytes of those as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace troupe::actors {

// One thread. The files are its own, in `folder`, which it makes when it needs it and removes at its end.
class KeptTotals {
 public:
  using Bytes = std::shared_ptr<const std::vector<std::byte>>;
  struct Limits {
    size_t memory = size_t{1} << 30;
    size_t files = size_t{16} << 30;
  };
  struct Part {
    std::string data;
    size_t whole_bytes = 0;  // of its total
  };

  KeptTotals(Limits limits, std::filesystem::path folder);
  ~KeptTotals() { clear(); }
  KeptTotals(const KeptTotals&) = delete;
  KeptTotals& operator=(const KeptTotals&) = delete;

  // A step other than the next begins anew: the state has come from elsewhere meanwhile. Throws Error(file)
  // when an older total could not be written, or the disk would be nearly full then, which checkpoints need:
  // it and those before it are dropped.
  void keep(int64_t step, Bytes total);
  // At most `bytes` from `offset` on. None: it is not here, or cannot be read.
  std::optional<Part> read(int64_t step, size_t offset, size_t bytes) const;
  bool empty() const { return totals_.empty(); }
  int64_t first() const { return first_; }  // REQUIRES !empty()
  void clear();

 private:
  struct Kept {
    Bytes bytes;  // null: in its file
    size_t size = 0;
  };
  std::filesystem::path path_of(int64_t step) const { return folder_ / std::to_string(step); }
  void file_oldest();
  void drop_first();

  const Limits limits_;
  const std::filesystem::path folder_;
  int64_t first_ = 0;
  std::deque<Kept> totals_;  // of first_, first_ + 1, ...: `filed_` in files, the rest in memory
  size_t filed_ = 0;
  size_t memory_bytes_ = 0, file_bytes_ = 0;
};

// What has been given to the owner of KeptTotals and is still in memory, there or on its way: while the owner
// writes to a slow disk, that grows with every step. One thread.
class TotalsInMemory {
 public:
  explicit TotalsInMemory(size_t bytes_max) : bytes_max_(bytes_max) {}
  bool have_room();  // for one more: three are always allowed, however large
  KeptTotals::Bytes add(std::vector<std::byte> total);

 private:
  size_t bytes_max_;
  std::vector<std::weak_ptr<const std::vector<std::byte>>> given_;
};

}  // namespace troupe::actors
