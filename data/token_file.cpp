#include "data/token_file.hpp"

#include <algorithm>

#include "kernels/base/hash.hpp"

namespace troupe::data {
namespace {

std::string file_of(uint64_t magic, int token_width, uint64_t samples, uint64_t packs,
                    std::string_view body) {
  TokenFileHeader header;
  header.magic = magic;
  header.token_width = uint32_t(token_width);
  header.samples = samples;
  header.packs = packs;
  header.body_bytes = body.size();
  header.body_checksum = checksum64(body.data(), body.size());
  return std::string(reinterpret_cast<const char*>(&header), sizeof header);
}

}  // namespace

void put_sample(ByteWriter& writer, SampleHead head, std::span<const int32_t> source,
                std::span<const int32_t> target, int token_width) {
  head.source_tokens = uint32_t(source.size());
  head.target_tokens = uint32_t(target.size());
  writer.put_raw({reinterpret_cast<const char*>(&head), sizeof head});
  writer.put_tokens(source, token_width);
  writer.put_tokens(target, token_width);
  writer.align(8);
}

SampleHead get_head(ByteReader& reader) {
  SampleHead head;
  std::memcpy(&head, reader.take(sizeof head).data(), sizeof head);
  if (head.window > 1 || (head.window == 1 && head.target_tokens < 2)) reader.fail();
  return head;
}

TokenFileHeader check_token_file(std::string_view bytes, uint64_t magic, const std::string& path) {
  TokenFileHeader header;
  const auto damaged = [&](std::string_view why) {
    return error(ErrorKind::corrupt,
                 "cannot use {}: {}; copy the dataset again, or make it anew with troupe prepare", path, why);
  };
  if (bytes.size() < sizeof header) throw damaged("it is cut short");
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != magic) throw damaged("it is no such file");
  if (header.version > kTokenFileVersion)
    throw error(ErrorKind::version, "cannot use {}: it was written by a newer troupe; update troupe", path);
  const std::string_view body = body_of(bytes);
  if (header.body_bytes != body.size()) throw damaged("it is cut short");
  if (header.token_width != 2 && header.token_width != 4) throw damaged("its header is damaged");
  if (header.body_checksum != checksum64(body.data(), body.size()))
    throw damaged("its checksum does not match");
  return header;
}

void PackWriter::add(std::string_view sample) {
  ByteReader reader(sample, "a sample");
  const SampleHead head = get_head(reader);
  const int64_t source = head.source_length(options_.kind), target = head.target_length();
  const int64_t longest_source = std::max(longest_source_, source),
                longest_target = std::max(longest_target_, target);
  TROUPE_CHECK(std::max(source, target) <= options_.pack_tokens);
  if (rows_ > 0 && (rows_ + 1) * std::max(longest_source, longest_target) > options_.pack_tokens)
    close_pack();
  pack_ += sample;
  ++rows_;
  longest_source_ = std::max(longest_source_, source);
  longest_target_ = std::max(longest_target_, target);
  ++result_.info.samples;
  result_.info.source_tokens += uint64_t(source);
  result_.info.target_tokens += uint64_t(target);
}

void PackWriter::close_pack() {
  if (rows_ == 0) return;
  if (!body_.empty() && body_.size() + pack_.size() > options_.shard_bytes_max) close_shard();
  if (body_.empty()) body_.reserve(options_.shard_bytes_max);  // untouched memory costs nothing
  index_.push_back({body_.size(), uint32_t(result_.shards.size()), rows_});
  body_ += pack_;
  shard_samples_ += rows_;
  ++shard_packs_;
  ++result_.info.packs;
  result_.info.source_tokens_padded += uint64_t(rows_ * longest_source_);
  result_.info.target_tokens_padded += uint64_t(rows_ * longest_target_);
  pack_.clear();
  rows_ = 0;
  longest_source_ = longest_target_ = 0;
}

void PackWriter::close_shard() {
  if (shard_packs_ == 0) return;
  const std::string name = fmt::format("{}-{:05}.tokens", to_string(options_.split), result_.shards.size());
  FileWriter writer(options_.folder, name, options_.sync);
  writer.append(file_of(kTokenShardMagic, options_.token_width, shard_samples_, shard_packs_, body_));
  writer.append(body_);
  result_.shards.push_back(writer.commit());
  body_.clear();
  shard_samples_ = shard_packs_ = 0;
}

SplitManifest PackWriter::finish() {
  close_pack();
  close_shard();
  std::string().swap(body_);
  const std::string_view body{reinterpret_cast<const char*>(index_.data()),
                              index_.size() * sizeof(PackEntry)};
  FileWriter writer(options_.folder, fmt::format("{}.packs", to_string(options_.split)), options_.sync);
  writer.append(
      file_of(kPackIndexMagic, options_.token_width, result_.info.samples, result_.info.packs, body));
  writer.append(body);
  result_.packs = writer.commit();
  return std::move(result_);
}

}  // namespace troupe::data
