#include "data/assembly.hpp"

#include <algorithm>
#include <array>
#include <unordered_set>

#include "data/token_file.hpp"
#include "data/windows.hpp"
#include "kernels/base/error.hpp"

namespace troupe::data {
namespace {

constexpr int kSampleBits = 24;       // a chunk has fewer samples than 2^24
constexpr size_t kLabelsMax = 65536;  // the manifest has them all
constexpr uint64_t kHashesToldAtOnce = 1 << 20;

// Where the caller may throw to stop: often enough that nobody waits for minutes.
void tell(const ProgressFunction& progress, uint64_t done, uint64_t total) {
  if (progress) progress({"write", done, total});
}

// Target length first, then source length, rising and falling by turns: neighbours are alike in both.
uint64_t length_key(Split split, int64_t source, int64_t target) {
  const auto turned = target % 2 == 0 ? uint64_t(source) : (uint64_t{1} << 30) - 1 - uint64_t(source);
  return uint64_t(split) << 60 | uint64_t(target) << 30 | turned;
}

std::string text_line(const ShardSample& sample, const std::string& label) {
  return fmt::format("{}\t{}\t{}\t{}\n", sample.id, label, sample.source_text, sample.target_text);
}

}  // namespace

// Which held-out samples stay, and the groups that nothing else may share with them.
struct Assembly::HeldOut {
  std::unordered_set<uint64_t> kept;    // numbers of samples
  std::unordered_set<uint64_t> groups;  // of both sides of all kept ones
};

Assembly::Assembly(const PrepareOptions& options, const TokeniseWork& work, const Tokenizer& tokenizer,
                   std::string work_folder, uint64_t chunks)
    : options_(options),
      work_(work),
      tokenizer_(tokenizer),
      work_folder_(std::move(work_folder)),
      shards_(work_folder_),
      places_(chunks),
      hashes_(work_folder_) {}

void Assembly::add_shard(uint64_t index, std::string_view bytes) {
  TROUPE_CHECK(index < places_.size(), "shard {} of {}", index, places_.size());
  Place& place = places_[index];
  if (place.here) return;
  ShardReader reader(bytes);
  const ShardHeader& header = reader.header();
  if (header.chunk != index || header.tokenizer_digest != tokenizer_.digest() ||
      header.token_width != token_width(tokenizer_.vocabulary_size()))
    throw error(ErrorKind::corrupt,
                "cannot use the shard of chunk {}: it is that of chunk {}, made with tokenizer {}", index,
                header.chunk, header.tokenizer_digest);
  std::vector<Hash128> hashes;
  const auto fits = [&](int32_t token) { return token >= 0 && token < tokenizer_.vocabulary_size(); };
  for (ShardSample sample; reader.next(&sample);) {
    const size_t longest = std::max(sample.source.size(), sample.target.size()) + 1;
    const bool good = std::all_of(sample.source.begin(), sample.source.end(), fits) &&
                      std::all_of(sample.target.begin(), sample.target.end(), fits) &&
                      (work_.unit == SampleUnit::token || longest <= size_t(work_.max_length));
    if (!good)
      throw error(ErrorKind::corrupt,
                  "cannot use the shard of chunk {}: sample {} has wrong tokens or is too long", index,
                  sample.id);
    hashes.push_back(sample.hash);
  }
  for (size_t i = 0; i < hashes.size(); ++i)
    hashes_.add({hashes[i].high, hashes[i].low, index << kSampleBits | i}, {});
  labels_.insert(header.labels.begin(), header.labels.end());
  if (labels_.size() > kLabelsMax + 1)  // with that of no label
    throw error(
        ErrorKind::usage,
        "the documents have more than {} different labels, such as \"{}\": they name kinds of documents, "
        "not each one; give another column with --tsv-label-column, or none",
        kLabelsMax, *labels_.rbegin());
  for (const auto& [reason, count] : header.dropped) dropped_[reason] += count;
  place.offset = shards_.append(bytes);
  place.bytes = bytes.size();
  place.samples = header.samples;
  place.here = true;
  ++arrived_;
}

// Calls use(number, sample, header, chunk) for every sample of the corpus, in order.
template <typename Use>
void Assembly::for_each_sample(const Use& use) const {
  uint64_t number = 0;
  for (size_t chunk = 0; chunk < places_.size(); ++chunk) {
    const std::string bytes = shards_.read(places_[chunk].offset, places_[chunk].bytes);
    ShardReader reader(bytes);
    for (ShardSample sample; reader.next(&sample); ++number) use(number, sample, reader.header(), chunk);
  }
}

void Assembly::find_duplicates(const ProgressFunction& progress) {
  uint64_t total = 0;
  for (Place& place : places_) {
    place.first_sample = total;
    total += place.samples;
  }
  duplicate_.assign(total, false);
  SortKey key, before{};
  std::string_view none;
  uint64_t seen = 0;
  for (bool first = true; hashes_.next(&key, &none); first = false, before = key) {
    if (++seen % kHashesToldAtOnce == 0) tell(progress, 0, places_.size());
    if (first || key[0] != before[0] || key[1] != before[1]) continue;
    duplicate_[places_[key[2] >> kSampleBits].first_sample + (key[2] & ((1 << kSampleBits) - 1))] = true;
    ++dropped_["duplicate"];
  }
}

Assembly::HeldOut Assembly::choose_held_out(const ProgressFunction& progress) const {
  struct Candidate {
    uint64_t number, source, target;
  };
  std::array<std::vector<Candidate>, 3> candidates;
  std::array<std::unordered_set<uint64_t>, 3> sources;  // one sample a group is enough to measure with
  for_each_sample([&](uint64_t number, const ShardSample& sample, const ShardHeader&, size_t chunk) {
    if (number == places_[chunk].first_sample) tell(progress, 0, places_.size());
    const auto split = size_t(sample.split);
    if (sample.split == Split::train || duplicate_[number] ||
        !sources[split].insert(sample.source_group).second)
      return;
    candidates[split].push_back({number, sample.source_group, sample.target_group});
  });
  HeldOut held_out;
  for (const Split split : {Split::test, Split::valid}) {
    std::vector<Candidate> kept;
    for (const Candidate& candidate : candidates[size_t(split)])
      if (held_out.groups.count(candidate.source) == 0 && held_out.groups.count(candidate.target) == 0)
        kept.push_back(candidate);
    for (const Candidate& candidate : kept) {
      held_out.kept.insert(candidate.number);
      held_out.groups.insert({candidate.source, candidate.target});
    }
  }
  return held_out;
}

void Assembly::sort_samples(const std::string& folder, const HeldOut& held_out, Manifest* manifest,
                            const ProgressFunction& progress) {
  manifest->labels.assign(labels_.begin(), labels_.end());  // sorted; "" comes first
  const auto label_id = [&](const std::string& label) {
    return uint32_t(std::lower_bound(manifest->labels.begin(), manifest->labels.end(), label) -
                    manifest->labels.begin());
  };
  samples_ = std::make_unique<ExternalSorter>(work_folder_);
  const int width = token_width(tokenizer_.vocabulary_size());
  ByteWriter record;
  const auto add = [&](Split split, SampleHead head, const Hash128& hash, std::span<const int32_t> source,
                       std::span<const int32_t> target) {
    record.bytes().clear();
    put_sample(record, head, source, target, width);
    head.source_tokens = uint32_t(source.size());
    head.target_tokens = uint32_t(target.size());
    samples_->add({length_key(split, int64_t(source.size()), head.target_length()), hash.high, hash.low},
                  record.bytes());
  };
  std::vector<WindowCutter> cutters;
  for (const Split split : kSplits)
    cutters.emplace_back(
        work_.max_length, tokenizer_.bos_id(), tokenizer_.eos_id(),
        [&add, split](uint64_t id, uint32_t label, std::span<const int32_t> tokens) {
          const std::string_view raw{reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes()};
          // Windows may be equal; their first document tells them apart.
          const Hash128 hash = text_hash(raw);
          add(split, {id, label, 1, 0, 0}, {hash.high ^ hash.low, id}, {}, tokens);
        });
  std::array<std::unique_ptr<FileWriter>, 3> texts;
  for (const Split split : {Split::valid, Split::test})
    texts[size_t(split)] =
        std::make_unique<FileWriter>(folder, fmt::format("{}.text.tsv", to_string(split)), options_.sync);
  for_each_sample([&](uint64_t number, const ShardSample& sample, const ShardHeader& header, size_t chunk) {
    if (number == places_[chunk].first_sample) tell(progress, chunk, places_.size());
    if (duplicate_[number]) return;
    const bool shares =
        held_out.groups.count(sample.source_group) + held_out.groups.count(sample.target_group) > 0;
    if (sample.split == Split::train ? shares : held_out.kept.count(number) == 0) {
      ++dropped_["like_a_held_out_one"];
      return;
    }
    const std::string& label = header.labels[sample.label];
    if (sample.split != Split::train) texts[size_t(sample.split)]->append(text_line(sample, label));
    ++manifest->kept[std::string(to_string(sample.split))];
    if (work_.unit == SampleUnit::token)
      cutters[size_t(sample.split)].add(sample.id, label_id(label), sample.target);
    else
      add(sample.split, {sample.id, label_id(label), 0, 0, 0}, sample.hash, sample.source, sample.target);
  });
  for (auto& cutter : cutters) cutter.finish();
  for (const Split split : {Split::valid, Split::test})
    manifest->splits[size_t(split)].text = texts[size_t(split)]->commit();
}

void Assembly::write_packs(const std::string& folder, Manifest* manifest, const ProgressFunction& progress) {
  std::unique_ptr<PackWriter> writer;
  const auto writer_of = [&](Split split) {
    return std::make_unique<PackWriter>(PackWriter::Options{folder, split, work_.kind, options_.pack_tokens,
                                                            token_width(tokenizer_.vocabulary_size()),
                                                            options_.shard_bytes_max, options_.sync});
  };
  SortKey key{};
  std::string_view sample;
  bool more = samples_->next(&key, &sample);
  for (const Split split : kSplits) {
    writer = writer_of(split);
    for (; more && Split(key[0] >> 60) == split; more = samples_->next(&key, &sample)) {
      const size_t shards = writer->shards();
      writer->add(sample);
      if (writer->shards() > shards) tell(progress, places_.size(), places_.size());
    }
    const FileEntry text = manifest->splits[size_t(split)].text;
    manifest->splits[size_t(split)] = writer->finish();
    manifest->splits[size_t(split)].text = text;
    tell(progress, places_.size(), places_.size());
  }
  TROUPE_CHECK(!more);
}

void Assembly::write(const std::string& folder, Manifest* manifest, const ProgressFunction& progress) {
  TROUPE_CHECK(complete(), "{} of {} shards", arrived_, places_.size());
  find_duplicates(progress);
  const HeldOut held_out = choose_held_out(progress);
  sort_samples(folder, held_out, manifest, progress);
  write_packs(folder, manifest, progress);
  manifest->tokenizer =
      write_file(folder, std::string(kTokenizerName), tokenizer_.model_bytes(), options_.sync);
  for (const auto& [reason, count] : dropped_) manifest->dropped[reason] += count;
}

}  // namespace troupe::data
