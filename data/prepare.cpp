#include "data/prepare.hpp"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "data/assembly.hpp"
#include "data/parallel.hpp"
#include "data/scan.hpp"
#include "data/sources.hpp"
#include "data/work_folder.hpp"
#include "kernels/base/error.hpp"

namespace troupe::data {
namespace {

constexpr size_t kChunkBytes = 512 << 10;
constexpr size_t kChunkDocuments = 16384;
constexpr size_t kSentenceBytes = 320;  // of those that a tokenizer is trained on, on average at most

void check_options(const PrepareOptions& options) {
  if (options.out.empty())
    throw error(ErrorKind::usage, "cannot prepare: no folder for the dataset was given");
  for (const std::string& language : {options.source.source_language, options.source.target_language})
    if (!language.empty()) check_language(language);
  if (options.max_length < 4 || options.max_length > 65536)
    throw error(ErrorKind::usage, "cannot use a maximum length of {} tokens: choose 4 to 65536",
                options.max_length);
  if (options.pack_tokens < options.max_length || options.pack_tokens > (1 << 20))
    throw error(ErrorKind::usage,
                "cannot use packs of {} tokens: choose at least the maximum length ({}) and at most 1048576",
                options.pack_tokens, options.max_length);
  if (options.valid_samples > 1'000'000 || options.test_samples > 1'000'000)
    throw error(ErrorKind::usage, "cannot hold out {} and {} paragraphs: choose at most 1000000 each",
                options.valid_samples, options.test_samples);
  if (!(options.clean.length_ratio_max >= 1))
    throw error(ErrorKind::usage,
                "cannot use a length ratio of {}: it is the longer side over the shorter one, so at least 1",
                options.clean.length_ratio_max);
  if (options.clean.characters_min > options.clean.characters_max)
    throw error(ErrorKind::usage,
                "cannot keep sentences of {} to {} characters: the least is more than the most",
                options.clean.characters_min, options.clean.characters_max);
  if (options.tokenizer_sentences == 0 || options.tokenizer_sentences > 10'000'000)
    throw error(ErrorKind::usage, "cannot train a tokenizer on {} sentences: choose 1 to 10000000",
                options.tokenizer_sentences);
  if (options.shard_bytes_max < 4096 || options.shard_bytes_max > (uint64_t{1} << 30))
    throw error(ErrorKind::usage, "cannot write shards of {} bytes: choose 4096 to 1073741824",
                options.shard_bytes_max);
}

// Nothing that a dataset in OUT would replace may be somebody's own. REQUIRES the lock of OUT: a dataset that
// another process is about to put there would not be seen.
void check_out(const PrepareOptions& options, bool tokenizer_there) {
  const std::string& out = options.out;
  if (!options.overwrite && holds_dataset(out))
    throw error(
        ErrorKind::usage,
        "cannot prepare into {}: it holds a dataset already; choose another folder, or pass --overwrite",
        out);
  std::vector<std::string> inputs = {options.source.source_path, options.source.target_path};
  if (!tokenizer_there) inputs.push_back(options.tokenizer_file);
  for (const std::string& input : inputs)
    if (would_be_removed(out, input))
      throw error(ErrorKind::usage,
                  "cannot prepare {} into {}: it lies there under the name of a dataset's file and would be "
                  "removed; give it another name, or choose another folder",
                  input, out);
  const auto foreign = somebodys_own(out, !tokenizer_there);
  const bool folder = foreign && std::filesystem::is_directory(out + "/" + *foreign);
  if (foreign && (folder || !options.overwrite))
    throw error(
        ErrorKind::usage,
        "cannot prepare into {}: its {} is of no dataset and would be replaced; choose another folder{}", out,
        *foreign, folder ? "" : ", or pass --overwrite");
}

size_t text_bytes(const RawDocument& document) {
  size_t bytes = document.label.size();
  for (const auto& text : document.source) bytes += text.size();
  for (const auto& text : document.target) bytes += text.size();
  return bytes;
}

std::string list(const Counts& counts) {
  std::string out;
  for (const auto& [name, count] : counts) {
    std::string words = name;
    std::replace(words.begin(), words.end(), '_', ' ');
    out += fmt::format("{}{} {}", out.empty() ? "" : ", ", words, count);
  }
  return out.empty() ? "nothing" : out;
}

}  // namespace

struct PreparePlan::State {
  PrepareOptions options;
  ProgressFunction progress;
  std::unique_ptr<WorkFolder> folder;
  std::unique_ptr<DocumentSource> source;
  TokeniseWork work;
  std::unique_ptr<Tokenizer> tokenizer;
  bool tokenizer_there = false;     // the one to use lies in OUT
  std::vector<uint64_t> checksums;  // of each chunk, from the scan
  uint64_t next_index = 0, documents = 0;
  std::unique_ptr<Assembly> assembly;

  void report(std::string_view phase) const {
    if (progress) progress({phase, source->bytes_read(), source->bytes_total()});
  }
  void rewind() {
    source->rewind();
    next_index = documents = 0;
  }
  std::optional<RawChunk> read_chunk();
  void hold_out(const SmallestHashes& hashes);
};

std::optional<RawChunk> PreparePlan::State::read_chunk() {
  RawChunk chunk;
  chunk.index = next_index;
  chunk.first_document = documents;
  RawDocument document;
  for (size_t bytes = 0;
       bytes < kChunkBytes && chunk.documents.size() < kChunkDocuments && source->next(&document);) {
    bytes += text_bytes(document);
    chunk.documents.push_back(std::move(document));
    document = {};
  }
  if (chunk.documents.empty()) return std::nullopt;
  ++next_index;
  documents += chunk.documents.size();
  return chunk;
}

// The paragraphs with the smallest hashes are the test set, the next ones validation.
void PreparePlan::State::hold_out(const SmallestHashes& hashes) {
  const std::vector<uint64_t> sorted = hashes.sorted();
  const size_t most = hashes.full() ? SIZE_MAX : sorted.size() / 10;
  const size_t test = std::min<size_t>(options.test_samples, most);
  const size_t valid = std::min<size_t>(options.valid_samples, most);
  work.test_below = test == 0 ? 0 : sorted[test - 1] + 1;
  work.valid_below = test + valid == 0 ? 0 : sorted[test + valid - 1] + 1;
}

PreparePlan::PreparePlan(PrepareOptions options, ProgressFunction progress)
    : state_(std::make_unique<State>()) {
  check_options(options);
  State& s = *state_;
  s.options = std::move(options);
  s.progress = std::move(progress);
  s.folder = std::make_unique<WorkFolder>(s.options.out);
  std::error_code none;
  s.tokenizer_there = std::filesystem::equivalent(s.options.out + "/" + std::string(kTokenizerName),
                                                  s.options.tokenizer_file, none);
  check_out(s.options, s.tokenizer_there);
  s.source = open_source(s.options.source, s.folder->path(), s.progress);
  s.work.clean = s.options.clean;
  s.work.unit = s.options.unit;
  s.work.kind = s.source->kind();
  s.work.source_language = s.options.source.source_language;
  s.work.target_language = s.options.source.target_language;
  s.work.max_length = s.options.max_length;
  if (s.work.unit == SampleUnit::token && s.work.kind == DatasetKind::pairs)
    throw error(
        ErrorKind::usage,
        "cannot cut sentence pairs into windows of tokens: --split token is for plain text; use document or "
        "sentence");
  if (!s.options.tokenizer_file.empty())
    s.tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(s.options.tokenizer_file));
}
PreparePlan::~PreparePlan() = default;
PreparePlan::PreparePlan(PreparePlan&&) noexcept = default;
PreparePlan& PreparePlan::operator=(PreparePlan&&) noexcept = default;

void PreparePlan::scan(int threads) {
  State& s = *state_;
  if (threads < 1 || threads > 1024)
    throw error(ErrorKind::usage, "cannot prepare with {} threads: choose 1 to 1024", threads);
  const bool sentences = s.tokenizer == nullptr;
  SmallestHashes hashes(10 * size_t(std::max(s.options.test_samples, s.options.valid_samples)) + 10);
  SentenceSample sample(s.options.tokenizer_sentences, s.options.tokenizer_sentences * kSentenceBytes);
  uint64_t samples = 0;
  Counts dropped;
  s.rewind();
  for_each_chunk(
      threads,
      [&] {
        s.report("scan");
        auto chunk = s.read_chunk();
        if (chunk) s.checksums.push_back(chunk_checksum(*chunk));
        return chunk;
      },
      [&] { return [&](RawChunk&& chunk) { return scan_chunk(s.work, chunk, sentences); }; },
      [&](ScanPart&& part) {
        samples += part.samples;
        for (const uint64_t hash : part.split_hashes) hashes.add(hash);
        for (const auto& [hash, sentence] : part.sentences) sample.add(hash, sentence);
        for (const auto& [reason, count] : part.dropped) dropped[reason] += count;
      });
  for (const auto& [reason, count] : s.source->dropped()) dropped[reason] += count;
  if (samples == 0)
    throw error(ErrorKind::file, "cannot prepare {}: no usable text in {} documents (left out: {})",
                s.source->description(), s.documents, list(dropped));
  s.hold_out(hashes);
  if (sentences) {
    if (s.progress) s.progress({"tokenizer", 0, 0});
    const std::vector<std::string> text = sample.take();
    s.tokenizer = std::make_unique<Tokenizer>(train_tokenizer(s.options.tokenizer, text));
  }
  s.assembly =
      std::make_unique<Assembly>(s.options, s.work, *s.tokenizer, s.folder->path(), s.checksums.size());
  s.rewind();
}

const TokeniseWork& PreparePlan::work() const {
  TROUPE_CHECK(state_->assembly != nullptr, "scan() comes first");
  return state_->work;
}
const Tokenizer& PreparePlan::tokenizer() const {
  TROUPE_CHECK(state_->tokenizer != nullptr, "scan() comes first");
  return *state_->tokenizer;
}
uint64_t PreparePlan::chunks() const {
  TROUPE_CHECK(state_->assembly != nullptr, "scan() comes first");
  return state_->checksums.size();
}

std::optional<RawChunk> PreparePlan::next_chunk() {
  State& s = *state_;
  TROUPE_CHECK(s.assembly != nullptr, "scan() comes first");
  s.report("tokenise");
  auto chunk = s.read_chunk();
  const bool same =
      chunk ? chunk->index < s.checksums.size() && chunk_checksum(*chunk) == s.checksums[chunk->index]
            : s.next_index == s.checksums.size();
  if (!same)
    throw error(ErrorKind::corrupt, "cannot prepare {}: the text changed while it was read; start again",
                s.source->description());
  return chunk;
}

void PreparePlan::add_shard(uint64_t index, std::string_view shard) {
  TROUPE_CHECK(state_->assembly != nullptr, "scan() comes first");
  state_->assembly->add_shard(index, shard);
}

bool PreparePlan::complete() const {
  return state_->assembly != nullptr && state_->assembly->complete();
}

PrepareReport PreparePlan::finish() {
  State& s = *state_;
  TROUPE_CHECK(complete());
  Manifest manifest;
  manifest.kind = s.work.kind;
  manifest.unit = to_string(s.work.unit);
  manifest.source_language = s.work.source_language;
  manifest.target_language = s.work.target_language;
  manifest.compatibility_forms = s.work.clean.compatibility_forms;
  manifest.vocabulary = s.tokenizer->vocabulary_size();
  manifest.pack_tokens = s.options.pack_tokens;
  manifest.max_length = s.options.max_length;
  manifest.source_checksum = sha256_hex(s.checksums.data(), s.checksums.size() * sizeof(uint64_t));
  manifest.kept["documents"] = s.documents;
  manifest.dropped = s.source->dropped();
  const std::string folder = s.folder->new_dataset();
  s.assembly->write(folder, &manifest, s.progress);
  if (manifest.splits[size_t(Split::train)].info.samples == 0)
    throw error(ErrorKind::file, "cannot prepare {}: no training text is left of {} documents (left out: {})",
                s.source->description(), s.documents, list(manifest.dropped));
  const std::string json = write_manifest(manifest);
  write_file(folder, std::string(kManifestName), json, s.options.sync);
  s.assembly.reset();
  s.report("write");  // the last moment to stop: from here on OUT changes
  s.folder->replace_dataset(files_of(manifest), s.options.sync);
  s.folder.reset();  // the work folder goes with it
  return {sha256_hex(json.data(), json.size()), manifest.kept, manifest.dropped};
}

std::string PrepareReport::text() const {
  Counts samples = kept;
  const auto documents = samples.extract("documents");
  return fmt::format("documents: {}\nkept: {}\nleft out: {}\ndataset {}\n",
                     documents ? documents.mapped() : 0, list(samples), list(dropped), digest);
}

PrepareReport prepare_local(PrepareOptions options, int threads, const ProgressFunction& progress) {
  PreparePlan plan(std::move(options), progress);
  plan.scan(threads);
  struct Done {
    uint64_t index;
    std::string shard;
  };
  for_each_chunk(
      threads, [&] { return plan.next_chunk(); },
      [&] {
        return [tokenise = ChunkTokeniser(plan.work(), plan.tokenizer())](RawChunk&& chunk) mutable {
          return Done{chunk.index, tokenise(chunk)};
        };
      },
      [&](Done&& done) { plan.add_shard(done.index, done.shard); });
  return plan.finish();
}

}  // namespace troupe::data
