// Nodes that have lost files of the dataset take them from the others; a file that nobody has is named.
#include <filesystem>
#include <fstream>
#include <iterator>

#include <doctest/doctest.h>

#include "tests/faults/nodes.hpp"
#include "tests/faults/training.hpp"

using namespace troupe::test;

namespace {

std::string prepared(const TemporaryFolder& folder) {
  std::string text;
  for (int i = 0; i < 3000; ++i) {
    const std::string number = std::to_string(i * 7919 % 10'007);
    text += "the " + number + " houses\tles " + number + " maisons\n";
  }
  const ProcessResult result =
      run({TROUPE_PROGRAM, "prepare", "--tsv", folder.write("pairs.tsv", text), "--out", folder / "set",
           "--vocabulary", "300", "--max-length", "64", "--threads", "1"});
  CAPTURE(result.err);
  REQUIRE(result.code == 0);
  return folder / "set";
}

std::string a_shard(const std::string& set) {
  for (const auto& file : std::filesystem::directory_iterator(set))
    if (file.path().filename().string().starts_with("train")) return file.path().filename();
  FAIL("no shard");
  return "";
}

std::string bytes_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> command(const std::string& out, const std::string& set,
                                 std::vector<std::string> more) {
  more.insert(more.end(), {"--data", set, "--set", "data.source=folder", "--set", "evaluation.every=0"});
  return train_command(out, 20, std::move(more));
}

}  // namespace

TEST_CASE("a node without the dataset, or with a damaged file, takes it from another; nobody notices") {
  const TemporaryFolder folder;
  const std::string set = prepared(folder), damaged = folder / "damaged", none = folder / "none";
  const auto train = [&](const std::string& out, std::vector<std::string> more) {
    const ProcessResult result = run(command(out, set, std::move(more)), {}, kRunDeadline);
    CAPTURE(result.err);
    REQUIRE(result.code == 0);
    return digest_of(result);
  };
  const std::string alone = train(folder / "alone", {"--nodes", "1", "--threads", "1"});
  std::filesystem::copy(set, damaged);
  std::fstream(damaged + "/" + a_shard(set), std::ios::in | std::ios::out | std::ios::binary)
      .seekp(600)
      .put('!');
  for (const std::string& lacking : {damaged, none}) {
    CAPTURE(lacking);
    Node alpha(folder, "alpha", "", {"--data", lacking}), beta(folder, "beta");
    const std::string cluster = cluster_file(folder, alpha, beta);
    CHECK(train(lacking + "-run", {"--cluster", cluster}) == alone);
    for (const auto& file : std::filesystem::directory_iterator(set)) {
      CAPTURE(file.path());
      const bool same = bytes_of(lacking / file.path().filename()) == bytes_of(file.path());
      CHECK(same);
    }
  }
}

TEST_CASE("two nodes that each lack what the other has make one another whole") {
  const TemporaryFolder folder;
  const std::string set = prepared(folder), other = folder / "other", shard = a_shard(set);
  const std::string manifest = bytes_of(set + "/manifest.json"), text = bytes_of(set + "/" + shard);
  std::filesystem::copy(set, other);
  std::filesystem::remove(set + "/" + shard);
  SUBCASE("a manifest") {
    std::filesystem::remove(other + "/manifest.json");
  }
  SUBCASE("another file") {
    std::filesystem::remove(other + "/tokenizer.model");
  }
  Node alpha(folder, "alpha", "", {"--data", other}), beta(folder, "beta");
  const std::string cluster = cluster_file(folder, alpha, beta);
  const ProcessResult result = run(command(folder / "run", set, {"--cluster", cluster}), {}, kRunDeadline);
  CAPTURE(result.err);
  CHECK(result.code == 0);
  for (const std::string& each : {set, other}) {
    CHECK(bytes_of(each + "/manifest.json") == manifest);
    CHECK(bytes_of(each + "/" + shard) == text);
  }
}

TEST_CASE("a file of the dataset that no node has is named") {
  const TemporaryFolder folder;
  const std::string set = prepared(folder), other = folder / "other", shard = a_shard(set);
  std::filesystem::copy(set, other);
  std::filesystem::remove(set + "/" + shard);
  std::filesystem::resize_file(other + "/" + shard, 100);
  const Node alpha(folder, "alpha", "", {"--data", other}), beta(folder, "beta");
  const std::string cluster = cluster_file(folder, alpha, beta);
  const ProcessResult result = run(command(folder / "run", set, {"--cluster", cluster}), {}, kRunDeadline);
  CAPTURE(result.err);
  CHECK(result.code == 1);
  CHECK(result.err.find("No other node has a whole " + shard) != std::string::npos);
  CHECK(result.err.find("it lacks it too") != std::string::npos);
}
