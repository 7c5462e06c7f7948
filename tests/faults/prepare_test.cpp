// `troupe prepare` on the loaders of several node processes: the same dataset, whoever tokenised which part.
#include <csignal>

#include <doctest/doctest.h>

#include "comm/fault_proxy.hpp"
#include "tests/faults/nodes.hpp"
#include "tests/faults/training.hpp"

using namespace troupe::test;

namespace {

std::string pairs_file(const TemporaryFolder& folder, int pairs) {
  std::string text;
  for (int i = 0; i < pairs; ++i) {
    const std::string number = std::to_string(int64_t{i} * 7919 % 1'000'003);
    text += "the " + number + " houses of this street are green\tles " + number +
            " maisons de cette rue sont vertes\n";
  }
  return folder.write("pairs.tsv", text);
}

// Pairs of so many lines of fifty sentences, each of four characters. What becomes of one is several times as
// large: hashes, numbers and tokens.
std::string short_sentences_file(const TemporaryFolder& folder, int lines) {
  const auto sentence = [](int number) {
    const auto letter = [&](int place) { return char(number / place % 26); };
    return std::string{char('A' + letter(1)), char('a' + letter(26)), char('a' + letter(26 * 26)), '.'};
  };
  std::string text;
  for (int line = 0; line < lines; ++line) {
    std::string source, target;
    for (int i = 0; i < 50; ++i) {
      const int number = (line * 50 + i) * 7919;
      source += (i > 0 ? " " : "") + sentence(number % 17'576);
      target += (i > 0 ? " " : "") + sentence((number + 5'000) % 17'576);
    }
    text += source + "\t" + target + "\n";
  }
  return folder.write("short.tsv", text);
}

std::vector<std::string> prepare_command(const std::string& tsv, const std::string& out,
                                         const std::vector<std::string>& more) {
  std::vector<std::string> command = {TROUPE_PROGRAM, "prepare", "--tsv",        tsv,
                                      "--out",        out,       "--vocabulary", "400"};
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

// The line that names the dataset's digest.
std::string dataset_of(const ProcessResult& result) {
  CAPTURE(result.err);
  REQUIRE(result.code == 0);
  const size_t at = result.out.rfind("dataset ");
  REQUIRE(at != std::string::npos);
  return result.out.substr(at);
}

// Two loaders, and a wire to beta that needs five seconds for each chunk: beta has some left when it is
// killed.
struct SlowLoader {
  static constexpr char kPatience[] = "patience_ms = 30000\n";  // signs of life come after chunks

  SlowLoader() {
    troupe::comm::Faults slow;
    slow.bytes_per_second_max = 100'000;
    way.set(troupe::comm::Direction::to_target, slow);
  }

  const TemporaryFolder folder;
  Node alpha{folder, "alpha", kPatience}, beta{folder, "beta", kPatience};
  troupe::comm::FaultProxy way{{.target = beta.address}};
  const std::string cluster =
      folder.write("cluster.toml", cluster_text(alpha.address, way.address(), kPatience));
};

}  // namespace

TEST_CASE("a dataset prepared on one, two or three nodes is the one that a single process makes") {
  const TemporaryFolder folder;
  const std::string tsv = pairs_file(folder, 40'000);  // several chunks
  const auto prepare = [&](const std::string& name, const std::vector<std::string>& more) {
    return dataset_of(run(prepare_command(tsv, folder / name, more), {}, kRunDeadline));
  };
  const std::string alone = prepare("alone", {"--threads", "1"});
  for (const char* nodes : {"1", "2", "3"})
    CHECK(prepare(std::string("nodes") + nodes, {"--nodes", nodes, "--threads", "3"}) == alone);
}

TEST_CASE("a text whose shards are larger than a message may be makes the same dataset on several nodes") {
  const TemporaryFolder folder;
  const std::string tsv = short_sentences_file(folder, 1'200);
  std::string said;
  const auto prepare = [&](const std::string& name, std::vector<std::string> more) {
    more.insert(more.end(), {"--split", "sentence", "--valid", "10", "--test", "10"});
    const ProcessResult result = run(prepare_command(tsv, folder / name, more), {}, kRunDeadline);
    said = result.err;
    return dataset_of(result);
  };
  const std::string alone = prepare("alone", {"--threads", "1"});
  CHECK(prepare("nodes", {"--nodes", "2", "--threads", "2"}) == alone);
  CAPTURE(said);
  CHECK(said.find("too large for a message") != std::string::npos);
}

TEST_CASE("a loader whose link broke during the first pass, and has come back, does its part") {
  constexpr char kPatience[] = "patience_ms = 30000\n";
  const TemporaryFolder folder;
  const Node alpha(folder, "alpha", kPatience);
  troupe::comm::FaultProxy way({.target = alpha.address});
  const std::vector<NodeAddress> nodes{NodeAddress{"alpha", way.address()}};
  const std::string cluster = folder.write("cluster.toml", cluster_text(nodes, kPatience));
  Process client(prepare_command(pairs_file(folder, 60'000), folder / "out", {"--cluster", cluster}));
  REQUIRE(client.wait_for_output("scan", kRunDeadline));  // a tokenizer is trained after it
  way.reset();
  const auto end = client.wait(kRunDeadline);
  REQUIRE(end);
  dataset_of(*end);
  CHECK(end->err.find("lost node") == std::string::npos);
  CHECK(way.stats().connections > 1);
}

TEST_CASE("the documents of a loader that is killed go to the others, and the dataset is the same") {
  SlowLoader there;
  const std::string tsv = pairs_file(there.folder, 60'000);
  const std::string alone =
      dataset_of(run(prepare_command(tsv, there.folder / "alone", {"--threads", "1"}), {}, kRunDeadline));
  Process client(prepare_command(tsv, there.folder / "out", {"--cluster", there.cluster}));
  REQUIRE(there.beta.process.wait_for_output("prepares documents", kRunDeadline));
  there.beta.process.signal(SIGKILL);
  const auto end = client.wait(kRunDeadline);
  REQUIRE(end);
  CHECK(dataset_of(*end) == alone);
  CHECK(end->err.find("lost node beta") != std::string::npos);
  CHECK(there.alpha.process.running());
}

TEST_CASE("when the last loader is killed the preparation fails by its name and leaves no dataset") {
  SlowLoader there;
  const std::string tsv = pairs_file(there.folder, 60'000);
  Process client(prepare_command(tsv, there.folder / "out", {"--cluster", there.cluster}));
  REQUIRE(there.beta.process.wait_for_output("prepares documents", kRunDeadline));
  there.alpha.process.signal(SIGKILL);
  there.beta.process.signal(SIGKILL);
  const auto end = client.wait(kRunDeadline);
  REQUIRE(end);
  CHECK(end->code == 1);
  CHECK(end->err.find("the last of the loaders") != std::string::npos);
  CHECK(run({"/usr/bin/find", there.folder / "out", "-name", "manifest.json"}).out.empty());
}
