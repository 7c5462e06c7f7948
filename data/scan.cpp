#include "data/scan.hpp"

#include "data/samples.hpp"
#include "kernels/base/hash.hpp"
#include "kernels/base/random.hpp"

namespace troupe::data {

void SmallestHashes::add(uint64_t hash) {
  if (count_max_ == 0 || (full() && hash >= *hashes_.rbegin())) return;
  hashes_.insert(hash);
  if (hashes_.size() > count_max_) hashes_.erase(std::prev(hashes_.end()));
}

void SentenceSample::add(uint64_t hash, std::string_view sentence) {
  if (hash >= limit_) return;
  const auto [place, fresh] = sentences_.emplace(hash, sentence);
  if (!fresh) return;
  bytes_ += sentence.size();
  while (sentences_.size() > count_max_ || (bytes_ > bytes_max_ && sentences_.size() > 1)) {
    const auto last = std::prev(sentences_.end());
    limit_ = last->first;
    bytes_ -= last->second.size();
    sentences_.erase(last);
  }
}

std::vector<std::string> SentenceSample::take() {
  std::vector<std::string> all;
  all.reserve(sentences_.size());
  for (auto& [hash, sentence] : sentences_) all.push_back(std::move(sentence));
  sentences_.clear();
  return all;
}

// Cuts text at spaces (where there is none, between characters) into pieces that the tokenizer's training
// takes.
template <typename Use>
void for_each_piece(std::string_view text, const Use& use) {
  while (text.size() > kTrainingSentenceMax) {
    const size_t space = text.rfind(' ', kTrainingSentenceMax);
    size_t end = space == std::string_view::npos ? kTrainingSentenceMax : space;
    while (end != space && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    use(text.substr(0, end));
    text.remove_prefix(end == space ? end + 1 : end);
  }
  use(text);
}

ScanPart scan_chunk(const TokeniseWork& work, const RawChunk& chunk, bool sentences) {
  ScanPart part;
  SampleCutter cutter(work);
  const auto sample = [&](std::string_view text) {
    if (!sentences || text.empty()) return;
    for_each_piece(text, [&](std::string_view sentence) {
      part.sentences.emplace_back(text_hash(sentence).low, sentence);
    });
  };
  for (size_t i = 0; i < chunk.documents.size(); ++i)
    cutter.cut(chunk.documents[i], chunk.first_document + i, &part.dropped, [&](const TextPart& text) {
      ++part.samples;
      part.split_hashes.push_back(text.split_hash);
      sample(text.source);
      sample(text.target);
    });
  return part;
}

uint64_t chunk_checksum(const RawChunk& chunk) {
  uint64_t sum = mix64(chunk.first_document, chunk.documents.size());
  const auto mix = [&](const std::string& text) { sum = mix64(sum, checksum64(text.data(), text.size())); };
  for (const auto& document : chunk.documents) {
    mix(document.label);
    for (const auto& text : document.source) mix(text);
    for (const auto& text : document.target) mix(text);
  }
  return sum;
}

}  // namespace troupe::data
