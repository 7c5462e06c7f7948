// Sorts records by a key in bounded memory: runs of at most `run_bytes_max` go to a scratch file, and next()
// merges them. Keys must be distinct for the order to be defined. Belongs to one thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/files.hpp"

namespace troupe::data {

using SortKey = std::array<uint64_t, 3>;

class ExternalSorter {
 public:
  ExternalSorter(std::string folder, size_t run_bytes_max = 48 << 20);
  ~ExternalSorter();

  void add(const SortKey& key, std::string_view payload);
  uint64_t size() const { return size_; }
  // The next record in order; false at the end. After the first call nothing may be added. The payload is
  // good until the next call.
  bool next(SortKey* key, std::string_view* payload);

 private:
  struct Record {
    SortKey key;
    size_t offset = 0, bytes = 0;  // of the payload in memory_
  };
  class Run;

  void sort_memory();
  void spill();

  std::string folder_;
  size_t run_bytes_max_;
  std::string memory_;
  std::vector<Record> records_;
  uint64_t size_ = 0;
  size_t next_record_ = 0;
  bool merging_ = false;
  std::optional<ScratchFile> scratch_;
  std::vector<std::unique_ptr<Run>> runs_;  // a heap by smallest key while merging
  std::string current_;
};

}  // namespace troupe::data
