// The first pass over a corpus: which paragraphs are held out, and which sentences train the tokenizer. Both
// are the ones with the smallest hashes, so the result does not depend on the order in which chunks are
// scanned or merged.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "data/prepare.hpp"

namespace troupe::data {

// The `count_max` smallest distinct hashes seen.
class SmallestHashes {
 public:
  explicit SmallestHashes(size_t count_max) : count_max_(count_max) {}
  void add(uint64_t hash);
  bool full() const { return hashes_.size() == count_max_; }
  size_t size() const { return hashes_.size(); }
  std::vector<uint64_t> sorted() const { return {hashes_.begin(), hashes_.end()}; }

 private:
  size_t count_max_;
  std::set<uint64_t> hashes_;
};

// Distinct sentences with the smallest hashes: at most count_max of them and bytes_max bytes.
class SentenceSample {
 public:
  SentenceSample(size_t count_max, size_t bytes_max) : count_max_(count_max), bytes_max_(bytes_max) {}
  void add(uint64_t hash, std::string_view sentence);
  std::vector<std::string> take();  // in order of their hashes

 private:
  size_t count_max_, bytes_max_, bytes_ = 0;
  uint64_t limit_ = UINT64_MAX;  // hashes from here on were turned away once, and are from then on
  std::map<uint64_t, std::string> sentences_;
};

// What one chunk adds; pure, may run on any thread.
struct ScanPart {
  uint64_t samples = 0;
  std::vector<uint64_t> split_hashes;
  std::vector<std::pair<uint64_t, std::string>> sentences;  // empty unless asked for
  Counts dropped;
};
ScanPart scan_chunk(const TokeniseWork& work, const RawChunk& chunk, bool sentences);

// Checksum of a chunk's text: tells whether the source is the same in both passes.
uint64_t chunk_checksum(const RawChunk& chunk);

}  // namespace troupe::data
