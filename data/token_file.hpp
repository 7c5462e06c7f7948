// Token shards and pack indexes on disk. Little-endian, a fixed header of 64 bytes, then the body. A shard's
// body is packs, a pack is samples: a fixed head, source tokens, target tokens, zeros up to a multiple of 8.
// An index's body is one PackEntry a pack. Reading is bounds-checked: Error(corrupt).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "data/bytes.hpp"
#include "data/dataset.hpp"
#include "data/manifest.hpp"

namespace troupe::data {

inline constexpr uint64_t kTokenShardMagic = 0x314B544550555254;  // "TRUPETK1"
inline constexpr uint64_t kPackIndexMagic = 0x3149504550555254;   // "TRUPEPI1"
inline constexpr uint32_t kTokenFileVersion = 1;

struct TokenFileHeader {
  uint64_t magic = 0;
  uint32_t version = kTokenFileVersion;
  uint32_t token_width = 2;  // bytes
  uint64_t samples = 0;
  uint64_t packs = 0;
  uint64_t body_bytes = 0;
  uint64_t body_checksum = 0;  // XXH3
  uint64_t reserved[2] = {0, 0};
};
static_assert(sizeof(TokenFileHeader) == 64);

struct PackEntry {
  uint64_t offset = 0;  // in the shard's body
  uint32_t shard = 0;
  uint32_t samples = 0;
};
static_assert(sizeof(PackEntry) == 16);

struct SampleHead {
  uint64_t id = 0;
  uint32_t label = 0;
  uint32_t window = 0;  // 1: target is a window of running text, one longer than what it trains
  uint32_t source_tokens = 0;
  uint32_t target_tokens = 0;

  // Rows of a batch: with <s> or </s>; a window has both where they fall.
  int64_t source_length(DatasetKind kind) const {
    return kind == DatasetKind::pairs ? int64_t{source_tokens} + 1 : 0;
  }
  int64_t target_length() const {
    return window == 1 ? int64_t{target_tokens} - 1 : int64_t{target_tokens} + 1;
  }
};
static_assert(sizeof(SampleHead) == 24);

void put_sample(ByteWriter& writer, SampleHead head, std::span<const int32_t> source,
                std::span<const int32_t> target, int token_width);
SampleHead get_head(ByteReader& reader);

// The file's header, verified: magic, version, sizes and the body's checksum.
TokenFileHeader check_token_file(std::string_view bytes, uint64_t magic, const std::string& path);
inline std::string_view body_of(std::string_view file) {
  return file.substr(sizeof(TokenFileHeader));
}

// Fills packs from samples that come in packing order and writes shards and index of one split.
class PackWriter {
 public:
  struct Options {
    std::string folder;
    Split split = Split::train;
    DatasetKind kind = DatasetKind::pairs;
    int64_t pack_tokens = 512;
    int token_width = 2;
    uint64_t shard_bytes_max = 64 << 20;
    bool sync = true;
  };
  explicit PackWriter(Options options) : options_(std::move(options)) {}

  void add(std::string_view sample);                       // as put_sample made it
  size_t shards() const { return result_.shards.size(); }  // that are written
  SplitManifest finish();

 private:
  void close_pack();
  void close_shard();

  Options options_;
  SplitManifest result_;
  std::string body_;  // of the shard being filled: whole packs
  std::string pack_;
  uint32_t rows_ = 0;
  int64_t longest_source_ = 0, longest_target_ = 0;
  uint64_t shard_packs_ = 0, shard_samples_ = 0;
  std::vector<PackEntry> index_;
};

}  // namespace troupe::data
