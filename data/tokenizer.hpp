// Subword tokenizer: SentencePiece (Kudo & Richardson 2018), unigram (Kudo 2018), BPE (Sennrich et al. 2016)
// or whole words. A Tokenizer is immutable and thread-safe, and is nothing but its model bytes: equal bytes,
// equal tokens. Text that was cleaned by data/clean.hpp and tokenised with byte fallback decodes to itself.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace troupe::data {

class Tokenizer {
 public:
  // Throws Error(corrupt) when the bytes are not a SentencePiece model, or one without pad, bos or eos
  // pieces. `origin` (a file's path) is named in errors.
  explicit Tokenizer(std::string model_bytes, std::string_view origin = "tokenizer");
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  static Tokenizer load(const std::string& path);  // throws Error(file | corrupt)

  // Ids of the text alone: no bos, no eos. Invalid UTF-8 becomes U+FFFD. REQUIRES text below 2 GiB.
  std::vector<int32_t> encode(std::string_view text) const;
  // pad, bos and eos are left out; ids outside the vocabulary throw Error(usage).
  std::string decode(std::span<const int32_t> ids) const;
  std::string piece(int32_t id) const;  // as in the vocabulary, "▁the"

  int32_t vocabulary_size() const { return vocabulary_size_; }
  int32_t pad_id() const { return pad_id_; }
  int32_t unk_id() const { return unk_id_; }
  int32_t bos_id() const { return bos_id_; }
  int32_t eos_id() const { return eos_id_; }
  const std::string& model_bytes() const { return model_bytes_; }
  const std::string& digest() const { return digest_; }  // SHA-256 of model_bytes, hex
  // Whether a text's tokens are those of its words one after the other, whatever the words.
  bool word_by_word() const { return word_by_word_; }

 private:
  bool find_word_by_word() const;

  struct Processor;
  std::unique_ptr<Processor> processor_;
  std::string model_bytes_;
  std::string digest_;
  int32_t vocabulary_size_ = 0, pad_id_ = 0, unk_id_ = 0, bos_id_ = 0, eos_id_ = 0;
  bool word_by_word_ = false;
};

// Encodes many texts several times faster by remembering words, up to a bound. Gives what Tokenizer::encode
// gives. Belongs to one thread; the tokenizer outlives it.
class CachedEncoder {
 public:
  explicit CachedEncoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::vector<int32_t> encode(std::string_view text);

 private:
  const Tokenizer& tokenizer_;
  std::unordered_map<std::string, std::vector<int32_t>> words_;
};

enum class TokenizerKind : uint8_t { unigram = 1, bpe, word };

struct TokenizerOptions {
  TokenizerKind kind = TokenizerKind::bpe;  // as many tokens as unigram here, and trained ten times faster
  int32_t vocabulary = 8192;  // a ceiling for small corpora: fewer pieces are made when the text has fewer
  double character_coverage = 0.9995;
  bool byte_fallback = true;  // characters outside the vocabulary become their bytes, never unk
};

// Longer ones are left out of the training, in bytes.
inline constexpr size_t kTrainingSentenceMax = 8192;

// Trains on the sentences (cleaned text) and returns the model bytes: a pure function of its arguments,
// independent of the machine's thread count. Ids: pad 0, unk 1, bos 2, eos 3. Throws Error(usage) when the
// options are impossible or there is no text.
std::string train_tokenizer(const TokenizerOptions& options, std::span<const std::string> sentences);

}  // namespace troupe::data
