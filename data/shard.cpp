#include "data/shard.hpp"

#include <algorithm>

#include "kernels/base/hash.hpp"

namespace troupe::data {
namespace {

constexpr uint64_t kShardMagic = 0x3144524853505254;  // "TRPSHRD1"
constexpr uint64_t kChunkMagic = 0x314B4E4843505254;  // "TRPCHNK1"
constexpr uint64_t kWorkMagic = 0x314B524F57505254;   // "TRPWORK1"
constexpr uint64_t kCountMax = 1 << 24;               // of any list in a shard or chunk

std::string sealed(ByteWriter writer) {
  writer.put(checksum64(writer.bytes().data(), writer.size()));
  return std::move(writer.bytes());
}

// Takes magic and checksum off; what is left is the body.
std::string_view opened(std::string_view bytes, uint64_t magic, std::string_view what) {
  ByteReader reader(bytes, what);
  if (bytes.size() < 16 || reader.get<uint64_t>() != magic) reader.fail();
  const std::string_view body = reader.take(bytes.size() - 16);
  if (reader.get<uint64_t>() != checksum64(bytes.data(), bytes.size() - 8)) reader.fail();
  return body;
}

uint32_t get_count(ByteReader& reader) {
  const auto count = reader.get<uint32_t>();
  if (count > kCountMax) reader.fail();
  return count;
}

void put_texts(ByteWriter& writer, const std::vector<std::string>& texts) {
  writer.put(uint32_t(texts.size()));
  for (const auto& text : texts) writer.put_text(text);
}

std::vector<std::string> get_texts(ByteReader& reader) {
  std::vector<std::string> texts;
  for (uint32_t i = get_count(reader); i > 0; --i) texts.emplace_back(reader.get_text());
  return texts;
}

}  // namespace

uint32_t ShardWriter::label(const std::string& name) {
  auto& labels = header_.labels;
  if (labels.empty()) label_ids_.emplace(labels.emplace_back(), 0);
  const auto [found, fresh] = label_ids_.try_emplace(name, uint32_t(labels.size()));
  if (fresh) labels.push_back(name);
  return found->second;
}

void ShardWriter::add(const ShardSample& sample) {
  TROUPE_CHECK(header_.samples < kCountMax);
  ++header_.samples;
  samples_.put(sample.id);
  samples_.put(sample.hash.high);
  samples_.put(sample.hash.low);
  samples_.put(sample.source_group);
  samples_.put(sample.target_group);
  samples_.put(sample.label);
  samples_.put(uint8_t(sample.split));
  samples_.put(uint32_t(sample.source.size()));
  samples_.put(uint32_t(sample.target.size()));
  samples_.put_tokens(sample.source, header_.token_width);
  samples_.put_tokens(sample.target, header_.token_width);
  if (sample.split == Split::train) return;
  samples_.put_text(sample.source_text);
  samples_.put_text(sample.target_text);
}

std::string ShardWriter::finish() {
  label("");
  ByteWriter writer;
  writer.put(kShardMagic);
  writer.put(header_.chunk);
  writer.put(header_.samples);
  writer.put(uint8_t(header_.token_width));
  writer.put_text(header_.tokenizer_digest);
  put_texts(writer, header_.labels);
  writer.put(uint32_t(header_.dropped.size()));
  for (const auto& [reason, count] : header_.dropped) {
    writer.put_text(reason);
    writer.put(count);
  }
  writer.put_raw(samples_.bytes());
  return sealed(std::move(writer));
}

ShardReader::ShardReader(std::string_view bytes)
    : reader_(opened(bytes, kShardMagic, "a tokenised shard"), "a tokenised shard") {
  header_.chunk = reader_.get<uint64_t>();
  header_.samples = get_count(reader_);
  header_.token_width = reader_.get<uint8_t>();
  if (header_.token_width != 2 && header_.token_width != 4) reader_.fail();
  header_.tokenizer_digest = reader_.get_text();
  header_.labels = get_texts(reader_);
  for (uint32_t i = get_count(reader_); i > 0; --i) {
    const std::string reason(reader_.get_text());
    header_.dropped[reason] = reader_.get<uint64_t>();
  }
}

bool ShardReader::next(ShardSample* sample) {
  if (read_ == header_.samples) {
    if (!reader_.done()) reader_.fail();
    return false;
  }
  ++read_;
  sample->id = reader_.get<uint64_t>();
  sample->hash.high = reader_.get<uint64_t>();
  sample->hash.low = reader_.get<uint64_t>();
  sample->source_group = reader_.get<uint64_t>();
  sample->target_group = reader_.get<uint64_t>();
  sample->label = reader_.get<uint32_t>();
  const auto split = reader_.get<uint8_t>();
  if (split > uint8_t(Split::test) || sample->label >= header_.labels.size()) reader_.fail();
  sample->split = Split(split);
  const auto source = reader_.get<uint32_t>(), target = reader_.get<uint32_t>();
  sample->source = reader_.get_tokens(source, header_.token_width);
  sample->target = reader_.get_tokens(target, header_.token_width);
  sample->source_text = sample->split == Split::train ? "" : reader_.get_text();
  sample->target_text = sample->split == Split::train ? "" : reader_.get_text();
  return true;
}

std::string encode_chunk(const RawChunk& chunk) {
  ByteWriter writer;
  writer.put(kChunkMagic);
  writer.put(chunk.index);
  writer.put(chunk.first_document);
  writer.put(uint32_t(chunk.documents.size()));
  for (const auto& document : chunk.documents) {
    writer.put_text(document.label);
    put_texts(writer, document.source);
    put_texts(writer, document.target);
  }
  return sealed(std::move(writer));
}

RawChunk decode_chunk(std::string_view bytes) {
  ByteReader reader(opened(bytes, kChunkMagic, "a chunk of documents"), "a chunk of documents");
  RawChunk chunk;
  chunk.index = reader.get<uint64_t>();
  chunk.first_document = reader.get<uint64_t>();
  for (uint32_t i = get_count(reader); i > 0; --i) {
    RawDocument document;
    document.label = reader.get_text();
    document.source = get_texts(reader);
    document.target = get_texts(reader);
    chunk.documents.push_back(std::move(document));
  }
  if (!reader.done()) reader.fail();
  return chunk;
}

std::string encode_work(const TokeniseWork& work) {
  ByteWriter writer;
  writer.put(kWorkMagic);
  writer.put(work.clean.characters_max);
  writer.put(work.clean.characters_min);
  writer.put(work.clean.length_ratio_max);
  writer.put(uint8_t(work.clean.drop_identical));
  writer.put(uint8_t(work.clean.compatibility_forms));
  writer.put(uint8_t(work.unit));
  writer.put(uint8_t(work.kind));
  writer.put_text(work.source_language);
  writer.put_text(work.target_language);
  writer.put(work.max_length);
  writer.put(work.test_below);
  writer.put(work.valid_below);
  return sealed(std::move(writer));
}

TokeniseWork decode_work(std::string_view bytes) {
  ByteReader reader(opened(bytes, kWorkMagic, "the settings of a preparation"),
                    "the settings of a preparation");
  TokeniseWork work;
  work.clean.characters_max = reader.get<uint32_t>();
  work.clean.characters_min = reader.get<uint32_t>();
  work.clean.length_ratio_max = reader.get<double>();
  work.clean.drop_identical = reader.get<uint8_t>() != 0;
  work.clean.compatibility_forms = reader.get<uint8_t>() != 0;
  const auto unit = reader.get<uint8_t>(), kind = reader.get<uint8_t>();
  if (unit < 1 || unit > uint8_t(SampleUnit::token) || kind < 1 || kind > uint8_t(DatasetKind::text))
    reader.fail();
  work.unit = SampleUnit(unit);
  work.kind = DatasetKind(kind);
  work.source_language = reader.get_text();
  work.target_language = reader.get_text();
  work.max_length = reader.get<int32_t>();
  work.test_below = reader.get<uint64_t>();
  work.valid_below = reader.get<uint64_t>();
  if (!reader.done()) reader.fail();
  return work;
}

}  // namespace troupe::data
