#include "data/tokenizer.hpp"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include "data/files.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::data {
namespace {

namespace sp = sentencepiece;

constexpr size_t kCachedWordsMax = 100'000;
constexpr size_t kCachedWordBytesMax = 64;
constexpr std::string_view kSpace = "▁";  // how pieces write a space

constexpr int kTrainingThreads = 4;  // part of the result: the threads' float sums are added in their order

// Feeds sentences from memory to the trainer.
class SpanIterator : public sp::SentenceIterator {
 public:
  explicit SpanIterator(std::span<const std::string> sentences) : sentences_(sentences) {}
  bool done() const override { return next_ >= sentences_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return sentences_[next_]; }
  sp::util::Status status() const override { return {}; }

 private:
  std::span<const std::string> sentences_;
  size_t next_ = 0;
};

const char* model_type(TokenizerKind kind) {
  switch (kind) {
    case TokenizerKind::unigram:
      return "unigram";
    case TokenizerKind::bpe:
      return "bpe";
    case TokenizerKind::word:
      return "word";
  }
  return "";
}

void check_options(const TokenizerOptions& options, size_t sentences) {
  const int32_t smallest = options.byte_fallback ? 272 : 16;
  if (options.vocabulary < smallest || options.vocabulary > 1'000'000)
    throw error(ErrorKind::usage, "cannot train a tokenizer with a vocabulary of {}: choose {} to 1000000{}",
                options.vocabulary, smallest, options.byte_fallback ? " (256 pieces are for bytes)" : "");
  if (!(options.character_coverage >= 0.9 && options.character_coverage <= 1))
    throw error(ErrorKind::usage, "cannot train a tokenizer with character coverage {}: choose 0.9 to 1",
                options.character_coverage);
  if (sentences == 0)
    throw error(ErrorKind::usage, "cannot train a tokenizer: there is no text to train it on");
}

// SentencePiece refuses a vocabulary in which the text's characters have no room with "... smaller than
// required_chars. 300 vs 546. ..." and an option of its own. Returns the second number; empty: it says
// something else.
std::string least_vocabulary(std::string_view reason) {
  constexpr std::string_view kBefore = "required_chars. ", kBetween = " vs ";
  const size_t numbers = reason.rfind(kBefore);
  const size_t between = numbers == std::string_view::npos ? numbers : reason.find(kBetween, numbers);
  if (between == std::string_view::npos) return {};
  const std::string_view second = reason.substr(between + kBetween.size());
  return std::string(second.substr(0, second.find_first_not_of("0123456789")));
}

}  // namespace

struct Tokenizer::Processor {
  sp::SentencePieceProcessor sentencepiece;
};

Tokenizer::Tokenizer(std::string model_bytes, std::string_view origin)
    : processor_(std::make_unique<Processor>()), model_bytes_(std::move(model_bytes)) {
  auto& model = processor_->sentencepiece;
  const auto status = model.LoadFromSerializedProto(model_bytes_);
  if (model_bytes_.empty() || !status.ok())
    throw error(ErrorKind::corrupt, "cannot use {}: it is not a SentencePiece model ({} bytes{}{})", origin,
                model_bytes_.size(), status.ok() ? "" : ", ", status.ok() ? "" : status.ToString());
  digest_ = sha256_hex(model_bytes_.data(), model_bytes_.size());
  vocabulary_size_ = model.GetPieceSize();
  pad_id_ = model.pad_id();
  unk_id_ = model.unk_id();
  bos_id_ = model.bos_id();
  eos_id_ = model.eos_id();
  if (pad_id_ < 0 || bos_id_ < 0 || eos_id_ < 0)
    throw error(ErrorKind::corrupt,
                "cannot use {}: the model lacks a pad, bos or eos piece (ids {}, {}, {}); train it with "
                "--pad_id=0 --unk_id=1 --bos_id=2 --eos_id=3",
                origin, pad_id_, bos_id_, eos_id_);
  word_by_word_ = find_word_by_word();
}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::load(const std::string& path) {
  return Tokenizer(read_file(path), path);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int> ids;
  const auto status = processor_->sentencepiece.Encode({text.data(), text.size()}, &ids);
  TROUPE_CHECK(status.ok(), "SentencePiece: {}", status.ToString());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::vector<int> kept;
  kept.reserve(ids.size());
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocabulary_size_)
      throw error(ErrorKind::usage, "cannot decode token {}: this vocabulary has ids 0 to {}", id,
                  vocabulary_size_ - 1);
    if (id != pad_id_ && id != bos_id_ && id != eos_id_) kept.push_back(id);
  }
  std::string text;
  const auto status = processor_->sentencepiece.Decode(kept, &text);
  TROUPE_CHECK(status.ok(), "SentencePiece: {}", status.ToString());
  return text;
}

std::string Tokenizer::piece(int32_t id) const {
  TROUPE_CHECK(id >= 0 && id < vocabulary_size_, "piece {} of {}", id, vocabulary_size_);
  return processor_->sentencepiece.IdToPiece(id);
}

// No piece reaches from one word into the next, so merges within a word never depend on its neighbours. The
// scores of BPE are ranks; those of a unigram model are logarithms, whose sums over a whole text are rounded,
// so that a tie could fall another way in a word alone. The probe shows that each word is given its space.
bool Tokenizer::find_word_by_word() const {
  const auto& model = processor_->sentencepiece;
  for (int32_t id = 0; id < vocabulary_size_; ++id) {
    const float score = model.GetScore(id);
    if (score != std::trunc(score) || model.IdToPiece(id).find(kSpace, 1) != std::string::npos) return false;
  }
  std::vector<int32_t> joined = encode("a"), second = encode("bc");
  joined.insert(joined.end(), second.begin(), second.end());
  return joined == encode("a bc");
}

std::vector<int32_t> CachedEncoder::encode(std::string_view text) {
  if (!tokenizer_.word_by_word() || text.find(kSpace) != std::string_view::npos)
    return tokenizer_.encode(text);
  std::vector<int32_t> ids;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(word.size() + 1, text.size()));
    if (word.empty()) continue;
    const auto found = words_.find(std::string(word));
    if (found != words_.end()) {
      ids.insert(ids.end(), found->second.begin(), found->second.end());
      continue;
    }
    std::vector<int32_t> fresh = tokenizer_.encode(word);
    ids.insert(ids.end(), fresh.begin(), fresh.end());
    if (words_.size() < kCachedWordsMax && word.size() <= kCachedWordBytesMax)
      words_.emplace(word, std::move(fresh));
  }
  return ids;
}

std::string train_tokenizer(const TokenizerOptions& options, std::span<const std::string> sentences) {
  check_options(options, sentences.size());
  const bool subwords = options.kind != TokenizerKind::word;
  const std::unordered_map<std::string, std::string> settings = {
      {"model_type", model_type(options.kind)},
      {"vocab_size", std::to_string(options.vocabulary)},
      {"character_coverage", fmt::format("{}", options.character_coverage)},
      {"byte_fallback", options.byte_fallback && subwords ? "true" : "false"},
      {"normalization_rule_name", "identity"},  // cleaning has normalised the text
      {"hard_vocab_limit", "false"},
      {"num_threads", std::to_string(kTrainingThreads)},
      {"max_sentence_length", std::to_string(kTrainingSentenceMax)},
      {"pad_id", "0"},
      {"unk_id", "1"},
      {"bos_id", "2"},
      {"eos_id", "3"},
      {"minloglevel", "2"},
  };
  SpanIterator iterator(sentences);
  std::string model;
  const auto status = sp::SentencePieceTrainer::Train(settings, &iterator, &model);
  if (status.ok() && !model.empty()) return model;
  const std::string reason = status.ToString();
  if (const std::string least = least_vocabulary(reason); !least.empty())
    throw error(ErrorKind::usage,
                "cannot train a tokenizer with a vocabulary of {}: the characters of this text{} take {}; "
                "choose at least so many",
                options.vocabulary, options.byte_fallback && subwords ? " and 256 pieces for bytes" : "",
                least);
  throw error(ErrorKind::usage, "cannot train a {} tokenizer of {} pieces on {} sentences: {}",
              model_type(options.kind), options.vocabulary, sentences.size(), reason);
}

}  // namespace troupe::data
