// What of a ledger would survive a loss of power, and when. The calls that sync a file come by here on their
// way to the system.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <utility>

#include <caf/after.hpp>
#include <caf/scoped_actor.hpp>
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "actors/ledger.hpp"
#include "data/tiny.hpp"
#include "support.hpp"
#include "tests/support/process.hpp"

using namespace troupe;
using namespace troupe::actors;

namespace {

struct Sync {
  std::string path;
  uint64_t bytes = 0;  // of the file then
};
struct Syncs {
  std::mutex mutex;
  std::vector<Sync> all;
};
Syncs& syncs() {
  static Syncs seen;
  return seen;
}

std::vector<Sync> take_syncs() {
  const std::lock_guard lock(syncs().mutex);
  return std::exchange(syncs().all, {});
}

int note_and_sync(long call, int descriptor) {
  std::error_code none;
  const auto path = std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", descriptor), none);
  struct stat status {};
  if (::fstat(descriptor, &status) == 0) {
    const std::lock_guard lock(syncs().mutex);
    syncs().all.push_back({path.string(), uint64_t(status.st_size)});
  }
  return int(::syscall(call, descriptor));
}

constexpr std::chrono::seconds kDeadline{60};

std::string path_of(const std::filesystem::path& there) {
  return std::filesystem::canonical(there).string();
}

// Of a node alone.
JobContextPtr context_of(const std::string& out, int64_t steps, int64_t checkpoint_every) {
  auto context = std::make_shared<JobContext>(*test_context(1, 0, steps, 4));
  context->job.checkpoint_every = checkpoint_every;
  context->out_folder = out;
  return context;
}

std::shared_ptr<const data::Dataset> dataset() {
  return data::make_tiny_dataset({.pairs = 100, .pack_tokens = 64});
}

// From its first step to the job's end.
void run_monitor(const JobContextPtr& context, int64_t steps) {
  caf::actor_system_config config;
  caf::actor_system system{config};
  const monitor_actor monitor = spawn_monitor(system, {context, {}}, dataset());
  for (int64_t step = 0; step < steps; ++step) {
    auto outcome = std::make_shared<StepOutcome>();
    outcome->plan.step = step;
    caf::anon_send(monitor, StepReport{outcome, {}, ""});
  }
  caf::anon_send_exit(monitor, caf::exit_reason::user_shutdown);
}

// Where the lines of a file end, in bytes.
std::vector<uint64_t> ends_of_lines(const std::filesystem::path& path) {
  std::vector<uint64_t> ends;
  std::ifstream in(path);
  uint64_t end = 0;
  for (std::string line; std::getline(in, line);) ends.push_back(end += line.size() + 1);
  return ends;
}

// How long the file was each time that it was synced.
std::vector<uint64_t> synced_ends(const std::filesystem::path& path) {
  std::vector<uint64_t> ends;
  for (const Sync& one : take_syncs())
    if (one.path == path_of(path)) ends.push_back(one.bytes);
  return ends;
}

}  // namespace

extern "C" int fdatasync(int descriptor) {
  return note_and_sync(SYS_fdatasync, descriptor);
}
extern "C" int fsync(int descriptor) {
  return note_and_sync(SYS_fsync, descriptor);
}

TEST_CASE("a synced ledger has its lines on the disk, and its name") {
  const test::TemporaryFolder folder;
  const auto path = ledger_path(folder.path(), "node0");
  LedgerWriter writer(path, 0);
  writer.append(LedgerRecord());
  take_syncs();
  writer.sync();
  const std::vector<Sync> seen = take_syncs();
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].path == path_of(path));
  CHECK(seen[0].bytes == std::filesystem::file_size(path));
  CHECK(seen[1].path == path_of(path.parent_path()));
  std::filesystem::remove(path);
  CHECK_THROWS_AS(writer.sync(), Error);
}

TEST_CASE("a merged ledger is on the disk before it takes the place of the old one") {
  const test::TemporaryFolder folder;
  const auto path = ledger_path(folder.path(), "node0"), other = ledger_path(folder.path(), "node1");
  LedgerWriter(other, 0).append(LedgerRecord());
  take_syncs();
  merge_ledger(path, other);
  const std::vector<Sync> seen = take_syncs();
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].path == path_of(path) + ".part");
  CHECK(seen[0].bytes == std::filesystem::file_size(path));
  CHECK(seen[1].path == path_of(path.parent_path()));
}

TEST_CASE("the lines before a checkpoint are synced as it is written") {
  const test::TemporaryFolder folder;
  const auto path = ledger_path(folder.path(), "node0");
  take_syncs();
  run_monitor(context_of(folder.path(), 5, 2), 5);
  const std::vector<uint64_t> ends = ends_of_lines(path);
  REQUIRE(ends.size() == 5);
  // After steps 2 and 4, after the last, and at the job's end.
  CHECK(synced_ends(path) == std::vector<uint64_t>{ends[1], ends[3], ends[4], ends[4]});
}

TEST_CASE("the ledger of a job that stops before its last step is synced at its end") {
  const test::TemporaryFolder folder;
  const auto path = ledger_path(folder.path(), "node0");
  take_syncs();
  run_monitor(context_of(folder.path(), 100, 0), 3);
  const std::vector<uint64_t> ends = ends_of_lines(path);
  REQUIRE(ends.size() == 3);
  CHECK(synced_ends(path) == std::vector<uint64_t>{ends[2]});
}

TEST_CASE("a monitor has a thread of its own, since it waits for disks") {
  const test::TemporaryFolder folder;
  TestSystem test;  // where actors that share threads do not run by themselves
  caf::scoped_actor self{test.system};
  const monitor_actor monitor = spawn_monitor(test.system, {context_of(folder.path(), 5, 2), {}}, dataset());
  self->monitor(monitor);
  caf::anon_send_exit(monitor, caf::exit_reason::user_shutdown);
  bool ended = false;
  self->receive([&](const caf::down_msg&) { ended = true; }, caf::after(kDeadline) >> [] {});
  CHECK(ended);
  test.run();
}
