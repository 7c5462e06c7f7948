// `troupe prepare`: text becomes a dataset folder. The work is cut into plain functions, so that threads or
// the data-loader actors of other nodes can share it: raw documents go out, tokenised shards come back, in
// any order. The folder's bytes depend on the options and the text alone.
//
//   PreparePlan plan(options);                        // opens the source; downloads for the Debian source
//   plan.scan(threads);                               // first pass: held-out sentences, the tokenizer
//   while (auto chunk = plan.next_chunk())            // of about 512 KiB of text each
//     plan.add_shard(chunk->index, tokenise_chunk(plan.work(), tokenizer, *chunk));
//   PrepareReport report = plan.finish();             // duplicates, splits, packs, files, manifest
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.hpp"
#include "data/tokenizer.hpp"

namespace troupe::data {

// One document as it is read: paragraphs of the source and, for pairs, as many of the target.
struct RawDocument {
  std::string label;
  std::vector<std::string> source;  // empty in a dataset of kind text
  std::vector<std::string> target;
};
struct RawChunk {
  uint64_t index = 0;
  uint64_t first_document = 0;
  std::vector<RawDocument> documents;
};

// How text becomes samples. document: a paragraph (pair) is a sample; sentence: a sentence, where both sides
// have as many; token: windows of max_length tokens over the running text (kind text only).
enum class SampleUnit : uint8_t { document = 1, sentence, token };

enum class SourceKind : uint8_t { aligned = 1, tsv, text, debian, memory };
struct SourceOptions {
  SourceKind kind = SourceKind::aligned;
  std::string source_path;  // aligned: the source side; tsv and text: the file
  std::string target_path;  // aligned: the target side
  int tsv_source_column = 1, tsv_target_column = 2, tsv_label_column = 0;  // from 1; 0: no label
  // "en", "fr": for the rules of sentences and the manifest; empty: not said. debian: whose descriptions;
  // source empty: kind text, descriptions of target
  std::string source_language, target_language;
  std::string cache;      // debian: keeps apt's lists for the next time; empty: they are removed at the end
  std::string apt_lists;  // debian: a folder with downloaded lists, used instead of running apt-get
  std::vector<RawDocument> documents;  // memory
  bool skip_invalid_utf8 = false;      // default: an error that names file and line
  uint32_t line_bytes_max = 1 << 20;   // longer lines are an error that names file and line
};

struct CleanOptions {
  uint32_t characters_max = 2000;  // code points a side
  uint32_t characters_min = 2;
  double length_ratio_max = 3;       // longer side > ratio * shorter side + 10 code points: dropped
  bool drop_identical = true;        // pairs whose sides are the same text
  bool compatibility_forms = false;  // NFKC instead of NFC
};

struct PrepareOptions {
  std::string out;         // dataset folder; made if missing
  bool overwrite = false;  // false: Error(usage) when `out` already holds a dataset
  SourceOptions source;
  CleanOptions clean;
  TokenizerOptions tokenizer;
  std::string tokenizer_file;             // use this SentencePiece model instead of training one
  uint32_t tokenizer_sentences = 100000;  // at most this many are sampled for training the tokenizer
  SampleUnit unit = SampleUnit::document;
  int32_t pack_tokens = 512;
  int32_t max_length = 256;  // tokens a side with </s>; longer samples are dropped (token: window length)
  // Paragraphs that are held out, of kind text documents: at most a tenth of the corpus each. Each is as many
  // samples as `unit` makes of it.
  uint32_t valid_samples = 1500, test_samples = 1500;
  uint64_t shard_bytes_max = 64 << 20;
  bool sync = true;  // fsync before each rename
};

// Every way a sample or line was left out, and how often; written to the manifest.
using Counts = std::map<std::string, uint64_t>;

struct PrepareReport {
  std::string digest;  // of the manifest
  Counts kept, dropped;
  std::string text() const;  // a few lines for people
};

struct PrepareProgress {
  std::string_view phase;        // "download", "scan", "tokenizer", "tokenise", "write"
  uint64_t done = 0, total = 0;  // bytes or documents; total 0: unknown
};
// May throw, which ends the work: it is asked for the last time just before OUT changes.
using ProgressFunction = std::function<void(const PrepareProgress&)>;

// What a loader needs to know beside the tokenizer; small, plain, and the same for all chunks.
struct TokeniseWork {
  CleanOptions clean;
  SampleUnit unit = SampleUnit::document;
  DatasetKind kind = DatasetKind::pairs;
  std::string source_language, target_language;
  int32_t max_length = 256;
  uint64_t test_below = 0;   // group hashes below this are test, then
  uint64_t valid_below = 0;  // below this validation: their text travels with the shard
};

// Pure: cleans, cuts, filters and encodes the documents of a chunk. Returns a shard: a checksummed byte
// string.
std::string tokenise_chunk(const TokeniseWork& work, const Tokenizer& tokenizer, const RawChunk& chunk);

// The same for many chunks, faster, since it remembers words (a few MB). Belongs to one thread; work and
// tokenizer outlive it. What a loader keeps.
class ChunkTokeniser {
 public:
  ChunkTokeniser(const TokeniseWork& work, const Tokenizer& tokenizer);
  std::string operator()(const RawChunk& chunk);

 private:
  const TokeniseWork& work_;
  const Tokenizer& tokenizer_;
  CachedEncoder encoder_;
};

// For the wire: as bytes and back (Error(corrupt) when they are damaged).
std::string encode_work(const TokeniseWork& work);
TokeniseWork decode_work(std::string_view bytes);
std::string encode_chunk(const RawChunk& chunk);
RawChunk decode_chunk(std::string_view bytes);

// The coordinator's side. Belongs to one thread at a time; keeps shards in OUT/.work until finish() or
// destruction.
class PreparePlan {
 public:
  explicit PreparePlan(PrepareOptions options, ProgressFunction progress = {});
  ~PreparePlan();
  PreparePlan(PreparePlan&&) noexcept;
  PreparePlan& operator=(PreparePlan&&) noexcept;

  void scan(int threads);                // trains the tokenizer too; the result does not depend on `threads`
  const TokeniseWork& work() const;      // REQUIRES scan() done
  const Tokenizer& tokenizer() const;    // REQUIRES scan() done or options.tokenizer_file
  uint64_t chunks() const;               // REQUIRES scan() done
  std::optional<RawChunk> next_chunk();  // in order; nullopt: all were handed out
  // Verifies and stores a shard. Throws Error(corrupt) for damaged bytes or a shard of another chunk; the
  // caller may then tokenise the chunk again. A second shard of the same chunk is ignored.
  void add_shard(uint64_t index, std::string_view shard);
  bool complete() const;  // every chunk's shard has come back
  // Writes the dataset into OUT/.work and moves it into its place when all is written, the manifest last: a
  // failure before that leaves what was in OUT as it was. REQUIRES complete().
  PrepareReport finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// All of it with threads of this process.
PrepareReport prepare_local(PrepareOptions options, int threads, const ProgressFunction& progress = {});

}  // namespace troupe::data
