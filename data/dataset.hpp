// A prepared dataset, opened for reading: memory-mapped token shards behind a manifest with the hashes of all
// files. A slot's samples are a pure function of (seed, step, slot, manifest), in constant time and memory
// for any step. Immutable and thread-safe once open; memory in use is what the kernel keeps of the mapped
// pages.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.hpp"
#include "kernels/base/batch.hpp"

namespace troupe::data {

enum class Split : uint8_t { train = 0, valid = 1, test = 2 };
inline constexpr std::array<Split, 3> kSplits = {Split::train, Split::valid, Split::test};
std::string_view to_string(Split split);

// pairs: source and target sentences (encoder-decoder). text: one sequence (decoder-only, encoder-only).
enum class DatasetKind : uint8_t { pairs = 1, text };
std::string_view to_string(DatasetKind kind);

struct SplitInfo {
  uint64_t samples = 0;
  uint64_t packs = 0;
  uint64_t source_tokens = 0;         // with </s>, without padding
  uint64_t target_tokens = 0;         // entries with a loss: those of an epoch
  uint64_t source_tokens_padded = 0;  // what a model computes on
  uint64_t target_tokens_padded = 0;
};

// A held-out sample as text (cleaned, untokenised). In a dataset of kind text, source is empty.
struct TextSample {
  uint64_t id = 0;
  std::string label, source, target;
};

// One sample's tokens inside the mapped shard. `id` is (document << 16 | part): the document's number in the
// corpus.
struct SampleView {
  uint64_t id = 0;
  uint32_t label = 0;                   // index into labels()
  std::vector<int32_t> source, target;  // without bos and eos, but in a window
  bool window = false;                  // of running text: target trains all its tokens but the first
};

class Dataset {
 public:
  // Opens and verifies a folder that `troupe prepare` wrote: manifest version, names, sizes and SHA-256 of
  // every file. Throws Error(file) when something is missing, Error(corrupt) when bytes differ,
  // Error(version) when it is newer; each names the file and what to do.
  static std::shared_ptr<const Dataset> open(const std::string& folder);
  ~Dataset();

  DatasetKind kind() const;
  const SplitInfo& info(Split split) const;
  uint64_t packs(Split split) const { return info(split).packs; }
  uint64_t samples(Split split) const { return info(split).samples; }
  int32_t pack_tokens() const;  // budget a pack was filled to: rows * longest <= pack_tokens on either side
  int32_t max_length() const;   // no row of a batch is longer than this
  const std::string& source_language() const;  // "en"; empty when it was not said
  const std::string& target_language() const;
  bool compatibility_forms() const;                // whether its text was cleaned to NFKC
  const std::vector<std::string>& labels() const;  // labels()[0] is "" (no label)

  // REQUIRES pack < packs(split). Rows come in the canonical order of the pack.
  Batch batch_of_pack(Split split, uint64_t pack) const;
  // Of its rows, for the ledger: no two of a split are the same. A window, of which a document may begin
  // several, is named by its place.
  std::vector<uint64_t> sample_ids(Split split, uint64_t pack) const;
  std::vector<SampleView> samples_of_pack(Split split, uint64_t pack) const;

  // The pack of a training slot: with g = step * slots + slot, the (g mod packs)-th of a permutation keyed by
  // (seed, g / packs). Over any packs() consecutive g that start an epoch each pack appears once.
  // REQUIRES slot < slots, step * slots + slot < 2^63. Throws Error(usage) when the training set is empty.
  uint64_t slot_pack(uint64_t seed, uint64_t step, uint32_t slot, uint32_t slots) const;
  Batch slot_batch(uint64_t seed, uint64_t step, uint32_t slot, uint32_t slots) const;
  double epoch_of_step(uint64_t step,
                       uint32_t slots) const;  // epochs completed before this step, with fraction

  // Held-out text in corpus order: of valid and test; training text is not kept.
  std::vector<TextSample> texts(Split split) const;

  const Tokenizer& tokenizer() const;
  const std::string& digest() const;  // SHA-256 of manifest.json, hex: names the dataset
  const std::string& folder() const;

 private:
  struct State;
  explicit Dataset(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace troupe::data
