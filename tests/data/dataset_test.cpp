#include "data/dataset.hpp"

#include <chrono>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <set>
#include <thread>

#include "data/manifest.hpp"
#include "data/tiny.hpp"
#include "data/token_file.hpp"
#include "tests/data/support.hpp"

using namespace troupe;
using namespace troupe::data;

namespace {

std::string prepared(const test::TemporaryFolder& folder, int pairs = 700) {
  auto options = test::small_options(folder / "set", test::made_up_pairs(pairs));
  options.shard_bytes_max = 16'384;  // several shards
  prepare_local(options, 1);
  return folder / "set";
}

bool equal(const Batch& a, const Batch& b) {
  return a.source.ids == b.source.ids && a.source.lengths == b.source.lengths &&
         a.target_in.ids == b.target_in.ids && a.target_in.lengths == b.target_in.lengths &&
         a.target_out == b.target_out && a.target_tokens == b.target_tokens && a.first_pack == b.first_pack;
}

}  // namespace

TEST_CASE("a batch is a padded rectangle within the budget, with begin and end in their places") {
  const test::TemporaryFolder folder;
  const auto dataset = Dataset::open(prepared(folder));
  const Tokenizer& tokenizer = dataset->tokenizer();
  uint64_t source_tokens = 0, target_tokens = 0, padded = 0, rows = 0;
  std::set<uint64_t> ids;
  for (uint64_t pack = 0; pack < dataset->packs(Split::train); ++pack) {
    const Batch batch = dataset->batch_of_pack(Split::train, pack);
    const auto samples = dataset->samples_of_pack(Split::train, pack);
    REQUIRE(batch.source.rows == int32_t(samples.size()));
    REQUIRE(batch.target_in.rows == batch.source.rows);
    CHECK(batch.first_pack == pack);
    CHECK(batch.source.rows * std::max(batch.source.cols, batch.target_in.cols) <= dataset->pack_tokens());
    CHECK(batch.source.cols == *std::max_element(batch.source.lengths.begin(), batch.source.lengths.end()));
    for (size_t row = 0; row < samples.size(); ++row) {
      const auto line = [&](const std::vector<int32_t>& values, int32_t cols) {
        return std::vector<int32_t>(values.begin() + int64_t(row) * cols,
                                    values.begin() + int64_t(row + 1) * cols);
      };
      auto source = samples[row].source, target_in = samples[row].target, target_out = samples[row].target;
      source.push_back(tokenizer.eos_id());
      target_in.insert(target_in.begin(), tokenizer.bos_id());
      target_out.push_back(tokenizer.eos_id());
      CHECK(batch.source.lengths[row] == int32_t(source.size()));
      CHECK(batch.target_in.lengths[row] == int32_t(target_in.size()));
      target_tokens += target_out.size();
      source_tokens += source.size();
      source.resize(size_t(batch.source.cols), tokenizer.pad_id());
      target_in.resize(size_t(batch.target_in.cols), tokenizer.pad_id());
      target_out.resize(size_t(batch.target_in.cols), Batch::kIgnore);
      CHECK(line(batch.source.ids, batch.source.cols) == source);
      CHECK(line(batch.target_in.ids, batch.target_in.cols) == target_in);
      CHECK(line(batch.target_out, batch.target_in.cols) == target_out);
      ids.insert(samples[row].id);
      ++rows;
    }
    padded += uint64_t(batch.target_in.rows) * uint64_t(batch.target_in.cols);
  }
  const SplitInfo& info = dataset->info(Split::train);
  CHECK(ids.size() == info.samples);
  CHECK(rows == info.samples);
  CHECK(source_tokens == info.source_tokens);
  CHECK(target_tokens == info.target_tokens);
  CHECK(padded == info.target_tokens_padded);
  CHECK(double(padded) < 1.1 * double(target_tokens));
  CHECK(dataset->labels() == std::vector<std::string>{"", "thirds"});
  for (const auto& sample : dataset->samples_of_pack(Split::train, 0))
    CHECK(sample.label == ((sample.id >> 16) % 3 == 0 ? 1 : 0));
}

TEST_CASE("every sample comes exactly once an epoch, whatever the number of slots") {
  const test::TemporaryFolder folder;
  const auto dataset = Dataset::open(prepared(folder));
  const uint64_t packs = dataset->packs(Split::train);
  std::vector<uint64_t> reference;
  for (uint64_t index = 0; index < 3 * packs; ++index)
    reference.push_back(dataset->slot_pack(7, index, 0, 1));
  for (uint64_t epoch = 0; epoch < 3; ++epoch) {
    std::multiset<uint64_t> ids;
    for (uint64_t i = 0; i < packs; ++i)
      for (const uint64_t id : dataset->sample_ids(Split::train, reference[epoch * packs + i]))
        ids.insert(id);
    CHECK(ids.size() == dataset->samples(Split::train));
    CHECK(std::set<uint64_t>(ids.begin(), ids.end()).size() == ids.size());
  }
  CHECK(std::vector<uint64_t>(reference.begin(), reference.begin() + int64_t(packs)) !=
        std::vector<uint64_t>(reference.begin() + int64_t(packs), reference.begin() + int64_t(2 * packs)));
  for (const uint32_t slots : {2u, 3u, 8u, 33u})
    for (uint64_t index = 0; index < 3 * packs; ++index)
      CHECK(dataset->slot_pack(7, index / slots, uint32_t(index % slots), slots) == reference[index]);
  uint64_t different = 0;
  for (uint64_t i = 0; i < packs; ++i) different += dataset->slot_pack(8, i, 0, 1) != reference[i];
  CHECK(different > packs / 2);
  CHECK(dataset->epoch_of_step(packs, 2) == 2);
}

TEST_CASE("the batch of step 10^12 costs no more than that of step 0") {
  const auto dataset = make_tiny_dataset({.pairs = 500});
  const auto seconds = [&](uint64_t first) {
    const auto begin = std::chrono::steady_clock::now();
    int64_t tokens = 0;
    for (uint64_t i = 0; i < 2000; ++i) tokens += dataset->slot_batch(1, first + i, 3, 8).target_tokens;
    CHECK(tokens > 0);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  seconds(0);
  double early = 1e9, late = 1e9;  // the best of five: a busy machine interrupts one or the other
  for (int i = 0; i < 5; ++i) {
    early = std::min(early, seconds(0));
    late = std::min(late, seconds(1'000'000'000'000));
  }
  CHECK(late < 10 * early + 0.5);
  CHECK(equal(dataset->slot_batch(1, 1'000'000'000'000, 3, 8),
              dataset->slot_batch(1, 1'000'000'000'000, 3, 8)));
}

TEST_CASE("threads read one dataset and get the same batches") {
  const test::TemporaryFolder folder;
  const auto dataset = Dataset::open(prepared(folder));
  std::vector<std::vector<Batch>> batches(4);
  {
    std::vector<std::jthread> threads;
    for (auto& mine : batches)
      threads.emplace_back([&] {
        for (uint64_t step = 0; step < 20; ++step) mine.push_back(dataset->slot_batch(3, step, 1, 4));
      });
  }
  for (const auto& mine : batches)
    for (size_t i = 0; i < mine.size(); ++i) CHECK(equal(mine[i], batches[0][i]));
}

TEST_CASE("any damaged, cut or missing file is refused by name") {
  const test::TemporaryFolder folder;
  const std::string path = prepared(folder);
  const auto files = test::folder_bytes(path);
  CHECK(files.count("train-00001.tokens") == 1);
  const auto write = [&](const std::string& name, const std::string& bytes) {
    std::ofstream(path + "/" + name, std::ios::binary | std::ios::trunc) << bytes;
  };
  for (const auto& [name, bytes] : files) {
    CAPTURE(name);
    for (const size_t at : {size_t{0}, bytes.size() / 3, bytes.size() - 2}) {
      std::string damaged = bytes;
      damaged[at] ^= 1;
      write(name, damaged);
      test::check_error(ErrorKind::corrupt, {path + "/" + name}, [&] { Dataset::open(path); });
    }
    write(name, bytes.substr(0, bytes.size() - 7));
    test::check_error(ErrorKind::corrupt, {path + "/" + name}, [&] { Dataset::open(path); });
    std::filesystem::remove(path + "/" + name);
    test::check_error(ErrorKind::file, {name}, [&] { Dataset::open(path); });
    write(name, bytes);
  }
  CHECK(Dataset::open(path)->digest().size() == 64);
  test::check_error(ErrorKind::file, {folder / "gone", "troupe prepare"},
                    [&] { Dataset::open(folder / "gone"); });
  std::string newer = files.at("manifest.json");
  newer.replace(newer.find("\"version\": 1"), 12, "\"version\": 9");
  write("manifest.json", newer);
  test::check_error(ErrorKind::version, {"manifest.json", "version 9"}, [&] { Dataset::open(path); });
  write("manifest.json", "{\"format\": \"something else\"}");
  test::check_error(ErrorKind::corrupt, {"manifest.json"}, [&] { Dataset::open(path); });
}

TEST_CASE("an index that claims more packs than it has is refused, however many") {
  const test::TemporaryFolder folder;
  const std::string path = prepared(folder);
  Manifest manifest = parse_manifest(read_file(path + "/manifest.json"), path);
  SplitManifest& train = manifest.splits[size_t(Split::train)];
  train.info.packs += uint64_t{1} << 60;  // times the 16 bytes of an entry, that is nothing in 64 bits
  std::string index = read_file(path + "/" + train.packs.name);
  std::memcpy(index.data() + offsetof(TokenFileHeader, packs), &train.info.packs, sizeof train.info.packs);
  train.packs.sha256 = sha256_hex(index.data(), index.size());
  write_file(path, train.packs.name, index, false);
  write_file(path, "manifest.json", write_manifest(manifest), false);
  test::check_error(ErrorKind::corrupt, {path + "/" + train.packs.name, "bytes are not those of"},
                    [&] { Dataset::open(path); });
}

TEST_CASE("a held-out text whose samples have no numbers is refused") {
  const test::TemporaryFolder folder;
  const std::string path = prepared(folder);
  Manifest manifest = parse_manifest(read_file(path + "/manifest.json"), path);
  FileEntry& text = manifest.splits[size_t(Split::test)].text;
  for (const std::string number : {"", "x", "12x", "-1", "99999999999999999999"}) {
    CAPTURE(number);
    text = write_file(path, "test.text.tsv", number + "\t\tone\tun\n", false);
    write_file(path, "manifest.json", write_manifest(manifest), false);
    const auto dataset = Dataset::open(path);
    test::check_error(ErrorKind::corrupt, {path, "text of test", "\"" + number + "\""},
                      [&] { dataset->texts(Split::test); });
  }
}

TEST_CASE("a training set that is empty is refused, and a small corpus needs no held-out sets") {
  const test::TemporaryFolder folder;
  const auto dataset = [&] {
    prepare_local(test::small_options(folder / "five", test::made_up_pairs(5)), 1);
    return Dataset::open(folder / "five");
  }();
  CHECK(dataset->samples(Split::train) == 5);
  CHECK(dataset->samples(Split::test) == 0);
  CHECK(dataset->texts(Split::test).empty());
  CHECK(dataset->slot_batch(1, 0, 0, 1).target_tokens > 0);
}
