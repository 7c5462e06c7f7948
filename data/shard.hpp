// A tokenised shard: what comes back from a loader for a chunk. A checksummed byte string: header, labels,
// what was left out, then samples in the chunk's order, each with its hashes, its tokens and, when it is held
// out, its text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/bytes.hpp"
#include "data/clean.hpp"
#include "data/prepare.hpp"

namespace troupe::data {

struct ShardSample {
  uint64_t id = 0;
  Split split = Split::train;  // by the split hash alone; the assembly may still drop it
  uint32_t label = 0;          // index into the shard's labels
  Hash128 hash;                // of the exact text of both sides: equal ones are duplicates
  uint64_t source_group = 0, target_group = 0;
  std::vector<int32_t> source, target;
  std::string source_text, target_text;  // of held-out samples
};

struct ShardHeader {
  uint64_t chunk = 0;
  uint32_t samples = 0;
  int token_width = 2;  // bytes
  std::string tokenizer_digest;
  std::vector<std::string> labels;  // labels[0] is ""
  Counts dropped;
};

inline int token_width(int32_t vocabulary) {
  return vocabulary <= 65536 ? 2 : 4;
}

class ShardWriter {
 public:
  explicit ShardWriter(ShardHeader header) : header_(std::move(header)) { header_.samples = 0; }
  void add(const ShardSample& sample);
  uint32_t label(const std::string& name);
  Counts& dropped() { return header_.dropped; }
  std::string finish();

 private:
  ShardHeader header_;
  std::unordered_map<std::string, uint32_t> label_ids_;
  ByteWriter samples_;
};

// Reads samples one by one. The constructor verifies the checksum; throws Error(corrupt). Keeps a view of
// `bytes`.
class ShardReader {
 public:
  explicit ShardReader(std::string_view bytes);
  const ShardHeader& header() const { return header_; }
  bool next(ShardSample* sample);

 private:
  ByteReader reader_;
  ShardHeader header_;
  uint32_t read_ = 0;
};

}  // namespace troupe::data
