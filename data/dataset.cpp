#include "data/dataset.hpp"

#include <algorithm>
#include <charconv>

#include "data/files.hpp"
#include "data/manifest.hpp"
#include "data/token_file.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/random.hpp"

namespace troupe::data {
namespace {

struct OpenSplit {
  std::vector<MappedFile> shards;
  MappedFile index, text;
  int token_width = 2;

  PackEntry entry(uint64_t pack) const {
    PackEntry entry;
    std::memcpy(&entry, body_of(index.bytes()).data() + pack * sizeof entry, sizeof entry);
    return entry;
  }
};

MappedFile open_verified(const std::string& folder, const FileEntry& entry) {
  const std::string path = folder + "/" + entry.name;
  MappedFile file(path);
  const auto refuse = [&](const std::string& why) {
    return error(ErrorKind::corrupt,
                 "cannot use {}: {}; copy the dataset again, or make it anew with troupe prepare", path, why);
  };
  if (file.bytes().size() != entry.bytes)
    throw refuse(fmt::format("it has {} bytes where the manifest says {}", file.bytes().size(), entry.bytes));
  if (sha256_hex(file.bytes().data(), file.bytes().size()) != entry.sha256)
    throw refuse("its SHA-256 is not the one in the manifest");
  file.release();
  return file;
}

OpenSplit open_split(const std::string& folder, const SplitManifest& manifest) {
  OpenSplit split;
  const std::string index_path = folder + "/" + manifest.packs.name;
  split.index = open_verified(folder, manifest.packs);
  const TokenFileHeader header = check_token_file(split.index.bytes(), kPackIndexMagic, index_path);
  split.token_width = int(header.token_width);
  for (const auto& shard : manifest.shards) {
    split.shards.push_back(open_verified(folder, shard));
    const auto shard_header =
        check_token_file(split.shards.back().bytes(), kTokenShardMagic, folder + "/" + shard.name);
    if (shard_header.token_width != header.token_width)
      throw error(ErrorKind::corrupt, "cannot use {}: its tokens are not as wide as the index says",
                  shard.name);
    split.shards.back().release();
  }
  if (!manifest.text.name.empty()) split.text = open_verified(folder, manifest.text);
  if (header.packs != manifest.info.packs)
    throw error(ErrorKind::corrupt, "cannot use {}: it has {} packs where the manifest says {}", index_path,
                header.packs, manifest.info.packs);
  if (header.body_bytes % sizeof(PackEntry) != 0 || header.packs != header.body_bytes / sizeof(PackEntry))
    throw error(ErrorKind::corrupt, "cannot use {}: its {} bytes are not those of {} packs", index_path,
                header.body_bytes, header.packs);
  for (uint64_t pack = 0; pack < header.packs; ++pack) {
    const PackEntry entry = split.entry(pack);
    if (entry.shard >= split.shards.size() ||
        entry.offset >= body_of(split.shards[entry.shard].bytes()).size())
      throw error(ErrorKind::corrupt, "cannot use {}: pack {} lies outside the shards", index_path, pack);
  }
  return split;
}

TokenMatrix matrix(size_t rows, size_t cols, int32_t pad) {
  TokenMatrix result;
  result.rows = int32_t(rows);
  result.cols = int32_t(cols);
  result.ids.assign(rows * cols, pad);
  result.lengths.assign(rows, 0);
  return result;
}

std::vector<std::string_view> cut_line(std::string_view line) {
  std::vector<std::string_view> fields;
  while (true) {
    const size_t tab = line.find('\t');
    fields.push_back(line.substr(0, tab));
    if (tab == std::string_view::npos) return fields;
    line.remove_prefix(tab + 1);
  }
}

}  // namespace

std::string_view to_string(Split split) {
  switch (split) {
    case Split::train:
      return "train";
    case Split::valid:
      return "valid";
    case Split::test:
      return "test";
  }
  return "";
}

std::string_view to_string(DatasetKind kind) {
  return kind == DatasetKind::pairs ? "pairs" : "text";
}

struct Dataset::State {
  std::string folder, digest;
  Manifest manifest;
  std::unique_ptr<Tokenizer> tokenizer;
  std::array<OpenSplit, 3> splits;
};

Dataset::Dataset(std::unique_ptr<State> state) : state_(std::move(state)) {}
Dataset::~Dataset() = default;

std::shared_ptr<const Dataset> Dataset::open(const std::string& folder) {
  auto state = std::make_unique<State>();
  state->folder = folder;
  const std::string path = folder + "/" + std::string(kManifestName);
  std::string json;
  try {
    json = read_file(path);
  } catch (const Error& reason) {
    throw error(ErrorKind::file, "cannot open the dataset {}: {} ({}); make one with troupe prepare", folder,
                "it has no readable manifest.json", reason.what());
  }
  state->manifest = parse_manifest(json, path);
  state->digest = sha256_hex(json.data(), json.size());
  const FileEntry& model = state->manifest.tokenizer;
  state->tokenizer = std::make_unique<Tokenizer>(std::string(open_verified(folder, model).bytes()),
                                                 folder + "/" + model.name);
  for (const Split split : kSplits)
    state->splits[size_t(split)] = open_split(folder, state->manifest.splits[size_t(split)]);
  return std::shared_ptr<const Dataset>(new Dataset(std::move(state)));
}

DatasetKind Dataset::kind() const {
  return state_->manifest.kind;
}
const SplitInfo& Dataset::info(Split split) const {
  return state_->manifest.splits[size_t(split)].info;
}
int32_t Dataset::pack_tokens() const {
  return state_->manifest.pack_tokens;
}
int32_t Dataset::max_length() const {
  return state_->manifest.max_length;
}
const std::string& Dataset::source_language() const {
  return state_->manifest.source_language;
}
const std::string& Dataset::target_language() const {
  return state_->manifest.target_language;
}
bool Dataset::compatibility_forms() const {
  return state_->manifest.compatibility_forms;
}
const std::vector<std::string>& Dataset::labels() const {
  return state_->manifest.labels;
}
const Tokenizer& Dataset::tokenizer() const {
  return *state_->tokenizer;
}
const std::string& Dataset::digest() const {
  return state_->digest;
}
const std::string& Dataset::folder() const {
  return state_->folder;
}

namespace {

// Calls use(head, source, target) for the samples of a pack.
template <typename Use>
void for_each_sample(const OpenSplit& split, const FileEntry& shard_file, uint64_t pack, const Use& use) {
  const PackEntry entry = split.entry(pack);
  const std::string_view body = body_of(split.shards[entry.shard].bytes());
  ByteReader reader(body.substr(entry.offset), shard_file.name);
  for (uint32_t row = 0; row < entry.samples; ++row) {
    const SampleHead head = get_head(reader);
    const auto source = reader.get_tokens(head.source_tokens, split.token_width);
    const auto target = reader.get_tokens(head.target_tokens, split.token_width);
    const uint64_t bytes = (uint64_t{head.source_tokens} + head.target_tokens) * uint64_t(split.token_width);
    reader.take((8 - bytes % 8) % 8);
    use(head, source, target);
  }
}

}  // namespace

std::vector<SampleView> Dataset::samples_of_pack(Split split, uint64_t pack) const {
  TROUPE_CHECK(pack < packs(split), "pack {} of {}", pack, packs(split));
  const OpenSplit& files = state_->splits[size_t(split)];
  const FileEntry& shard = state_->manifest.splits[size_t(split)].shards[files.entry(pack).shard];
  std::vector<SampleView> samples;
  for_each_sample(files, shard, pack, [&](const SampleHead& head, auto& source, auto& target) {
    samples.push_back({head.id, head.label, source, target, head.window == 1});
  });
  return samples;
}

std::vector<uint64_t> Dataset::sample_ids(Split split, uint64_t pack) const {
  std::vector<uint64_t> ids;
  for (const SampleView& sample : samples_of_pack(split, pack))
    ids.push_back(sample.window ? pack << 32 | ids.size() : sample.id);
  return ids;
}

Batch Dataset::batch_of_pack(Split split, uint64_t pack) const {
  const std::vector<SampleView> samples = samples_of_pack(split, pack);
  const bool pairs = kind() == DatasetKind::pairs;
  const int32_t pad = tokenizer().pad_id(), bos = tokenizer().bos_id(), eos = tokenizer().eos_id();
  size_t source_cols = 0, target_cols = 0;
  for (const SampleView& sample : samples) {
    source_cols = std::max(source_cols, pairs ? sample.source.size() + 1 : 0);
    target_cols = std::max(target_cols, sample.window ? sample.target.size() - 1 : sample.target.size() + 1);
  }
  Batch batch;
  batch.first_pack = pack;
  if (pairs) batch.source = matrix(samples.size(), source_cols, pad);
  batch.target_in = matrix(samples.size(), target_cols, pad);
  batch.target_out.assign(samples.size() * target_cols, Batch::kIgnore);
  for (size_t row = 0; row < samples.size(); ++row) {
    const auto& [id, label, source, target, window] = samples[row];
    if (pairs) {
      const auto out =
          std::copy(source.begin(), source.end(), batch.source.ids.begin() + int64_t(row * source_cols));
      *out = eos;
      batch.source.lengths[row] = int32_t(source.size()) + 1;
    }
    std::vector<int32_t> line;  // <s> target </s>; a window has them in it
    if (!window) line.push_back(bos);
    line.insert(line.end(), target.begin(), target.end());
    if (!window) line.push_back(eos);
    std::copy(line.begin(), line.end() - 1, batch.target_in.ids.begin() + int64_t(row * target_cols));
    std::copy(line.begin() + 1, line.end(), batch.target_out.begin() + int64_t(row * target_cols));
    batch.target_in.lengths[row] = int32_t(line.size()) - 1;
    batch.target_tokens += int64_t(line.size()) - 1;
  }
  return batch;
}

uint64_t Dataset::slot_pack(uint64_t seed, uint64_t step, uint32_t slot, uint32_t slots) const {
  TROUPE_CHECK(slot < slots && step < (uint64_t{1} << 63) / slots, "step {}, slot {} of {}", step, slot,
               slots);
  const uint64_t all = packs(Split::train);
  if (all == 0) throw error(ErrorKind::usage, "cannot train on {}: its training set is empty", folder());
  const uint64_t index = step * slots + slot;
  return Permutation(mix64(mix64(seed, 0x7061636b73), index / all), all)(index % all);
}

Batch Dataset::slot_batch(uint64_t seed, uint64_t step, uint32_t slot, uint32_t slots) const {
  return batch_of_pack(Split::train, slot_pack(seed, step, slot, slots));
}

double Dataset::epoch_of_step(uint64_t step, uint32_t slots) const {
  const uint64_t all = packs(Split::train);
  return all == 0 ? 0 : double(step) * double(slots) / double(all);
}

std::vector<TextSample> Dataset::texts(Split split) const {
  std::vector<TextSample> samples;
  std::string_view rest = state_->splits[size_t(split)].text.bytes();
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const auto fields = cut_line(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (fields.size() != 4)
      throw error(ErrorKind::corrupt, "cannot read the text of {} in {}: a line has {} fields",
                  to_string(split), folder(), fields.size());
    const std::string_view number = fields[0];
    TextSample sample{0, std::string(fields[1]), std::string(fields[2]), std::string(fields[3])};
    const auto parsed = std::from_chars(number.data(), number.data() + number.size(), sample.id);
    if (parsed.ec != std::errc() || parsed.ptr != number.data() + number.size())
      throw error(ErrorKind::corrupt, "cannot read the text of {} in {}: \"{}\" is no sample's number",
                  to_string(split), folder(), number);
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace troupe::data
