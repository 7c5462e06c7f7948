#include "actors/client/local_cluster.hpp"

#include <filesystem>
#include <optional>
#include <utility>

#include <doctest/doctest.h>

#include "actors/node_lock.hpp"
#include "kernels/base/error.hpp"
#include "tests/support/process.hpp"

using namespace troupe;
using namespace troupe::actors;

TEST_CASE("a node that does not start leaves its log, and the error says where") {
  const test::TemporaryFolder folder;
  LocalCluster cluster(config::local_cluster(2, 1, {}), folder / "run", "/bin/false");
  CHECK_THROWS_WITH_AS(cluster.start(), doctest::Contains((folder / "run/logs/node0.log").c_str()), Error);
  CHECK(std::filesystem::exists(folder / "run/logs/node0.log"));
}

TEST_CASE("what a local cluster has written can be undone, where its folder was not there before") {
  const test::TemporaryFolder folder;
  const std::string new_folder = folder / "new", old_folder = folder / "old", used = folder / "used";
  std::filesystem::create_directory(old_folder);
  for (const std::string& out : {new_folder, old_folder, used}) {
    LocalCluster cluster(config::local_cluster(2, 1, {}), out, "/bin/false");
    CHECK_THROWS_AS(cluster.start(), Error);
    if (out == used) folder.write("used/more", "");
    cluster.undo();
  }
  CHECK_FALSE(std::filesystem::exists(new_folder));
  CHECK(std::filesystem::exists(old_folder + "/cluster.toml"));
  CHECK(std::filesystem::exists(used + "/more"));
  CHECK_FALSE(std::filesystem::exists(used + "/logs"));
}

TEST_CASE("a folder belongs to one local cluster at a time") {
  const test::TemporaryFolder folder;
  const std::string out = folder / "run";
  {
    const LocalCluster first(config::local_cluster(1, 1, {}), out, "/bin/false");
    CHECK_THROWS_WITH_AS(LocalCluster(config::local_cluster(2, 1, {}), out, "/bin/false"),
                         doctest::Contains(("another troupe is at work in " + out).c_str()), Error);
  }
  LocalCluster(config::local_cluster(1, 1, {}), out, "/bin/false");
}

TEST_CASE("a node has its name in a folder to itself while it has a job there") {
  const test::TemporaryFolder folder;
  const std::string out = folder / "run";
  CHECK_FALSE(find_locking_node(out));
  std::optional<NodeLock> lock(std::in_place, out, "alpha");
  const NodeLock other(out, "beta");
  CHECK_THROWS_WITH_AS(NodeLock(out, "alpha"),
                       doctest::Contains(("another troupe is at work in " + out).c_str()), Error);
  CHECK(find_locking_node(out));
  lock.reset();
  CHECK(find_locking_node(out).value_or("") == "beta");
  lock.emplace(out, "alpha");
}

TEST_CASE("where no lock is to be had a node goes on without") {
  const test::TemporaryFolder folder;
  folder.write("ledger", "");  // a file, in which there can be none
  const NodeLock one(folder.path(), "alpha"), another(folder.path(), "alpha");
  CHECK_FALSE(find_locking_node(folder.path()));
}

TEST_CASE("a start that is given up ends its processes") {
  const test::TemporaryFolder folder;
  const std::string silent = folder.write("silent", "#!/bin/sh\nexec sleep 1000\n");
  std::filesystem::permissions(silent, std::filesystem::perms::owner_all);
  LocalCluster cluster(config::local_cluster(2, 1, {}), folder / "run", silent);
  try {
    cluster.start([] { return true; });
    FAIL("started");
  } catch (const Error& problem) {
    CHECK(problem.kind() == ErrorKind::cancelled);
  }
  CHECK_FALSE(cluster.running(0));
  CHECK_FALSE(cluster.running(1));
}
