// What of a ledger would survive a loss of power, and when. The calls that sync a file come by here on their
// way to the system.
#include <chrono>
#include <filesystem>
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
#include "kernels/cpu/backend.hpp"
#include "model/state.hpp"
#include "tests/actors/support.hpp"
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
JobContextPtr context_of(const std::string& out) {
  auto context = std::make_shared<JobContext>(*test_context(1, 0, 5, 4));
  context->out_folder = out;
  return context;
}

std::shared_ptr<const data::Dataset> dataset() {
  return data::make_tiny_dataset({.pairs = 100, .pack_tokens = 64});
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
  sync_ledger(path);  // which is not there
  LedgerWriter(path, 0).append(LedgerRecord());
  take_syncs();
  sync_ledger(path);
  const std::vector<Sync> seen = take_syncs();
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].path == path_of(path));
  CHECK(seen[0].bytes == std::filesystem::file_size(path));
  CHECK(seen[1].path == path_of(path.parent_path()));
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

TEST_CASE("the ledger is synced before a checkpoint is written, and after it") {
  const test::TemporaryFolder folder;
  const auto path = ledger_path(folder.path(), "node0");
  LedgerWriter(path, 0).append(LedgerRecord());
  const auto context = context_of(folder.path());
  const auto backend = kernels::make_cpu_backend();
  const auto stream = backend->create_stream();
  model::ModelConfig config = context->job.model;
  config.vocabulary = 32;
  const auto model = model::make_model(config);
  const auto state = std::make_shared<model::TrainState>(model::initial_state(*backend, *stream, *model, 1));
  caf::actor_system_config options;
  caf::actor_system system{options};
  caf::scoped_actor self{system};
  auto info = std::make_shared<model::CheckpointInfo>();
  info->model = config;
  const checkpointer_actor checkpointer = spawn_checkpointer(system, {context, {}}, info);
  take_syncs();
  std::string written;
  self->request(checkpointer, kDeadline, SaveState{state, true})
      .receive([&](const Saved& saved) { written = saved.path; }, [](const caf::error&) {});
  REQUIRE(std::filesystem::exists(written));
  std::vector<std::string> order;  // of the ledger and the checkpoint, which is synced under another name
  for (const Sync& one : take_syncs()) {
    if (one.path == path_of(path)) order.push_back("ledger");
    if (one.path.find("checkpoint-") != std::string::npos) order.push_back("checkpoint");
  }
  CHECK(order == std::vector<std::string>{"ledger", "checkpoint", "ledger"});
  caf::anon_send_exit(checkpointer, caf::exit_reason::user_shutdown);
}

TEST_CASE("a monitor has a thread of its own, since it waits for disks") {
  const test::TemporaryFolder folder;
  TestSystem test;  // where actors that share threads do not run by themselves
  caf::scoped_actor self{test.system};
  const monitor_actor monitor = spawn_monitor(test.system, {context_of(folder.path()), {}}, dataset());
  self->monitor(monitor);
  caf::anon_send_exit(monitor, caf::exit_reason::user_shutdown);
  bool ended = false;
  self->receive([&](const caf::down_msg&) { ended = true; }, caf::after(kDeadline) >> [] {});
  CHECK(ended);
  test.run();
}
