#include "data/tiny.hpp"

#include <array>
#include <cstdlib>
#include <filesystem>

#include "data/prepare.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/random.hpp"

namespace troupe::data {
namespace {

constexpr std::array<std::string_view, 20> kSource = {
    "zero",     "one",     "two",     "three",     "four",     "five",    "six",
    "seven",    "eight",   "nine",    "ten",       "eleven",   "twelve",  "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
constexpr std::array<std::string_view, 20> kTarget = {"nul",  "un",   "deu",  "tri",  "kvar", "kin", "ses",
                                                      "sep",  "ok",   "nau",  "dek",  "onz",  "doz", "trez",
                                                      "karz", "kinz", "sesz", "sepz", "okz",  "nauz"};

// The words of sentence `index`, by number.
std::vector<uint32_t> draw_sentence(const TinyOptions& options, uint64_t index) {
  const Philox random = philox_from(mix64(options.seed, 0x74696e79));
  const uint32_t words = 1 + random(index, 0)[0] % options.words_max;
  std::vector<uint32_t> numbers(words);
  for (uint32_t i = 0; i < words; ++i) numbers[i] = random(index, i + 1)[0] % uint32_t(kSource.size());
  return numbers;
}

RawDocument make_document(const TinyOptions& options, uint64_t index) {
  const std::vector<uint32_t> numbers = draw_sentence(options, index);
  std::string source, target;
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (i > 0) source += ' ', target += ' ';
    source += kSource[numbers[i]];
    target += kTarget[numbers[numbers.size() - 1 - i]];
  }
  if (options.language_model) return {"", {}, {source + " . " + target}};
  return {"", {source}, {target}};
}

PrepareOptions prepare_options(const std::string& folder, const TinyOptions& options) {
  if (options.pairs < 10 || options.pairs > 1'000'000 || options.words_max < 1 || options.words_max > 100)
    throw error(ErrorKind::usage,
                "cannot make a tiny dataset of {} sentences of up to {} words: choose 10 to 1000000 "
                "sentences and 1 to "
                "100 words",
                options.pairs, options.words_max);
  PrepareOptions prepare;
  prepare.out = folder;
  prepare.source.kind = SourceKind::memory;
  prepare.source.source_language = options.language_model ? "" : "numbers";
  prepare.source.target_language = "nombroj";
  for (uint64_t i = 0; i < options.pairs; ++i) prepare.source.documents.push_back(make_document(options, i));
  prepare.clean.length_ratio_max = 10;
  prepare.tokenizer.kind = TokenizerKind::word;
  prepare.tokenizer.vocabulary = 320;
  prepare.tokenizer.byte_fallback = false;
  prepare.pack_tokens = options.pack_tokens;
  prepare.max_length = std::min(options.pack_tokens, int32_t(2 * options.words_max) + 3);
  if (options.language_model) prepare.unit = SampleUnit::token;
  prepare.valid_samples = prepare.test_samples = options.heldout;
  prepare.sync = false;
  return prepare;
}

}  // namespace

void write_tiny_dataset(const std::string& folder, const TinyOptions& options) {
  PrepareOptions prepare = prepare_options(folder, options);
  prepare.sync = true;
  prepare_local(std::move(prepare), 1);
}

std::shared_ptr<const Dataset> make_tiny_dataset(const TinyOptions& options) {
  std::string folder = (std::filesystem::temp_directory_path() / "troupe-tiny-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr)
    throw error(ErrorKind::file,
                "cannot make a temporary folder {}: set TMPDIR to a folder that you may write to", folder);
  struct Remove {
    const std::string& path;
    ~Remove() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  } remove{folder};
  prepare_local(prepare_options(folder, options), 1);
  return Dataset::open(folder);  // its maps outlive the files' names
}

}  // namespace troupe::data
