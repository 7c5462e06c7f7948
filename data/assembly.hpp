// The last part of `prepare`: takes shards in any order; removes duplicates, keeps the sets apart, packs, and
// writes the files. Its result depends on the shards alone. Belongs to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "data/manifest.hpp"
#include "data/prepare.hpp"
#include "data/shard.hpp"
#include "data/sorter.hpp"

namespace troupe::data {

class Assembly {
 public:
  // Keeps shards in a scratch file in `work_folder`.
  Assembly(const PrepareOptions& options, const TokeniseWork& work, const Tokenizer& tokenizer,
           std::string work_folder, uint64_t chunks);

  void add_shard(uint64_t index, std::string_view bytes);  // see PreparePlan::add_shard
  bool complete() const { return arrived_ == places_.size(); }
  // Writes shards, indexes, texts and tokenizer into `folder`, and fills the manifest's splits, labels and
  // counts. REQUIRES complete().
  void write(const std::string& folder, Manifest* manifest, const ProgressFunction& progress);

 private:
  struct Place {
    uint64_t offset = 0, bytes = 0;  // in the scratch file
    uint64_t first_sample = 0;       // number of the chunk's first sample
    uint32_t samples = 0;
    bool here = false;
  };
  struct HeldOut;

  template <typename Use>
  void for_each_sample(const Use& use) const;
  void find_duplicates(const ProgressFunction& progress);
  HeldOut choose_held_out(const ProgressFunction& progress) const;
  void sort_samples(const std::string& folder, const HeldOut& held_out, Manifest* manifest,
                    const ProgressFunction& progress);
  void write_packs(const std::string& folder, Manifest* manifest, const ProgressFunction& progress);

  const PrepareOptions& options_;
  const TokeniseWork& work_;
  const Tokenizer& tokenizer_;
  std::string work_folder_;
  ScratchFile shards_;
  std::vector<Place> places_;
  uint64_t arrived_ = 0;
  std::set<std::string> labels_;
  Counts dropped_;
  ExternalSorter hashes_;                    // (hash, chunk << 24 | sample) of every sample
  std::vector<bool> duplicate_;              // by number of the sample
  std::unique_ptr<ExternalSorter> samples_;  // in packing order
};

}  // namespace troupe::data
