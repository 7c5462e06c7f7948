// `troupe prepare` on the loaders of several node processes: the same dataset, whoever tokenised which part.
#include <csignal>

#include <doctest/doctest.h>

#include "comm/fault_proxy.hpp"
#include "nodes.hpp"
#include "training.hpp"

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
