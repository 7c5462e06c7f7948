#include <algorithm>

#include "data/prepare.hpp"
#include "data/samples.hpp"
#include "data/shard.hpp"
#include "kernels/base/error.hpp"

namespace troupe::data {
namespace {

Split split_of(const TokeniseWork& work, uint64_t split_hash) {
  if (split_hash < work.test_below) return Split::test;
  return split_hash < work.valid_below ? Split::valid : Split::train;
}

}  // namespace

ChunkTokeniser::ChunkTokeniser(const TokeniseWork& work, const Tokenizer& tokenizer)
    : work_(work), tokenizer_(tokenizer), encoder_(tokenizer) {}

std::string tokenise_chunk(const TokeniseWork& work, const Tokenizer& tokenizer, const RawChunk& chunk) {
  return ChunkTokeniser(work, tokenizer)(chunk);
}

std::string ChunkTokeniser::operator()(const RawChunk& chunk) {
  ShardHeader header;
  header.chunk = chunk.index;
  header.token_width = token_width(tokenizer_.vocabulary_size());
  header.tokenizer_digest = tokenizer_.digest();
  ShardWriter writer(std::move(header));
  SampleCutter cutter(work_);
  ShardSample sample;
  for (size_t i = 0; i < chunk.documents.size(); ++i) {
    const RawDocument& document = chunk.documents[i];
    sample.label = writer.label(clean_line(document.label));
    cutter.cut(document, chunk.first_document + i, &writer.dropped(), [&](const TextPart& part) {
      sample.source = encoder_.encode(part.source);
      sample.target = encoder_.encode(part.target);
      const size_t longest = std::max(sample.source.size(), sample.target.size()) + 1;
      if (work_.unit != SampleUnit::token && longest > size_t(work_.max_length)) {
        ++writer.dropped()["too_many_tokens"];
        return;
      }
      sample.id = part.id;
      sample.split = split_of(work_, part.split_hash);
      sample.hash = text_hash(part.source, part.target);
      sample.target_group = group_hash(part.target);
      sample.source_group = part.source.empty() ? sample.target_group : group_hash(part.source);
      if (sample.split != Split::train) {
        sample.source_text = part.source;
        sample.target_text = part.target;
      }
      writer.add(sample);
    });
  }
  return writer.finish();
}

}  // namespace troupe::data
