// The ledger of a job on the small made-up language, whole and with everything that can be wrong with it.
#include "actors/ledger.hpp"

#include <functional>

#include <doctest/doctest.h>

#include "data/tiny.hpp"
#include "tests/support/process.hpp"

using namespace troupe;
using namespace troupe::actors;

namespace {

constexpr uint32_t kSlots = 4, kHeldOut = 2;

config::JobConfig small_job() {
  return config::parse_job(
      "test", "[data]\nsource = \"tiny\"\n[training]\nslots = 4\n[evaluation]\nevery = 5\nslots = 2\n");
}

scheduler::SlotSet slots_of(std::initializer_list<uint32_t> list) {
  scheduler::SlotSet set;
  for (uint32_t slot : list) set.insert(slot);
  return set;
}

struct Run {
  std::shared_ptr<const data::Dataset> dataset = data::make_tiny_dataset();
  config::JobConfig job = small_job();
  test::TemporaryFolder folder;
  int64_t steps = 0;

  // Two epochs and a bit.
  Run() { steps = int64_t(2 * dataset->packs(data::Split::train) / kSlots + 3); }

  LedgerRecord record(int64_t step) const {
    LedgerRecord r;
    r.step = step;
    r.view = {uint64_t(step < 7 ? 1 : 2), 0};
    r.computed_by = {{"node0", slots_of({0, 1})}, {"node1", slots_of({2, 3})}};
    if (step % 5 == 0) r.computed_by["node1"] = slots_of({2, 3, 4, 5});
    for (uint32_t slot = 0; slot < kSlots; ++slot)
      r.packs.push_back(dataset->slot_pack(uint64_t(job.seed), uint64_t(step), slot, kSlots));
    r.target_tokens = 100 + step;
    r.chain = fmt::format("{:064x}", step);
    return r;
  }

  void write(const std::string& node, const std::function<void(LedgerRecord&)>& change = {},
             int64_t at = -1) const {
    std::filesystem::remove(ledger_path(folder.path(), node));
    LedgerWriter writer(ledger_path(folder.path(), node), 0);
    for (int64_t step = 0; step < steps; ++step) {
      LedgerRecord r = record(step);
      if (step == at && change) change(r);
      if (r.step >= 0) writer.append(r);
    }
  }
  LedgerSummary verify() const { return verify_ledger(folder.path(), job, *dataset); }
  void wrong(const std::string& says) const {
    CHECK_THROWS_WITH_AS(verify(), doctest::Contains(says.c_str()), Error);
  }
};

}  // namespace

TEST_CASE("a job that was given more steps after its end has evaluated there too") {
  Run run;
  const auto evaluated = [](LedgerRecord& r) { r.computed_by["node1"] = slots_of({2, 3, 4, 5}); };
  run.write("node0", evaluated, 13);
  CHECK(run.verify().steps == run.steps);
  run.write(
      "node0",
      [](LedgerRecord& r) {
        r.computed_by["node1"] = slots_of({2, 3, 4});
      },
      13);
  run.wrong("at step 13: there is no slot 4");
}

TEST_CASE("sets of slots are written as ranges") {
  for (const auto& [text, set] :
       std::vector<std::pair<std::string, scheduler::SlotSet>>{{"", {}},
                                                               {"0", slots_of({0})},
                                                               {"0-2,5,7-8", slots_of({0, 1, 2, 5, 7, 8})},
                                                               {"1023", slots_of({1023})}}) {
    CHECK(to_ranges(set) == text);
    CHECK(from_ranges(text) == set);
  }
  for (const char* bad : {"x", "1-", "-1", "3-2", "1024", "1,,2", "1 2"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(from_ranges(bad), Error);
  }
}

TEST_CASE("a record is read back as it was written, and any changed byte is noticed") {
  const Run run;
  const LedgerRecord record = run.record(5);
  const std::string line = to_line(record);
  CHECK(parse_line(line) == record);
  for (size_t i = 0; i < line.size(); ++i) {
    std::string changed = line;
    changed[i] = changed[i] == '7' ? '8' : '7';
    CAPTURE(changed);
    CHECK_THROWS_AS(parse_line(changed), Error);
  }
}

TEST_CASE("a whole ledger proves that every sample was counted once an epoch") {
  const Run run;
  run.write("node0");
  run.write("node1");
  const LedgerSummary summary = run.verify();
  CHECK(summary.steps == run.steps);
  CHECK(summary.epochs > 2);
  CHECK(summary.samples > 2 * run.dataset->samples(data::Split::train));
  CHECK(summary.views == 2);
  CHECK(summary.slots.at("node0") == uint64_t(2 * run.steps));
  CHECK(summary.chain == run.record(run.steps - 1).chain);
}

TEST_CASE("what is wrong with a ledger is named") {
  const Run run;
  run.wrong("holds no ledger");
  const auto with = [&](const char* says, const std::function<void(LedgerRecord&)>& change) {
    CAPTURE(says);
    run.write("node0", change, 9);
    run.wrong(says);
  };
  with("step 9: it has no record", [](LedgerRecord& r) { r.step = -1; });
  with("step 9: slot 3 was not counted", [](LedgerRecord& r) { r.computed_by["node1"] = slots_of({2}); });
  with("was counted for another node too", [](LedgerRecord& r) { r.computed_by["node1"].insert(0); });
  with("there is no slot 4", [](LedgerRecord& r) { r.computed_by["node1"].insert(4); });
  with("step 9: slot 1 was pack", [](LedgerRecord& r) { r.packs[1] = r.packs[0]; });
  with("it names 3 packs", [](LedgerRecord& r) { r.packs.pop_back(); });
  run.write("node0");
  run.write(
      "node1", [](LedgerRecord& r) { r.chain[0] = 'f'; }, 9);
  run.wrong("step 9: node");
}

TEST_CASE("going on cuts off what comes after, and a line that was not finished") {
  const Run run;
  run.write("node0");
  const auto path = ledger_path(run.folder.path(), "node0");
  std::ofstream(path, std::ios::app) << "{\"step\":";
  CHECK(run.verify().steps == run.steps);  // a torn line is no record yet
  LedgerWriter writer(path, 10);
  for (int64_t step = 10; step < 15; ++step) writer.append(run.record(step));
  CHECK(run.verify().steps == 15);
}

TEST_CASE("a node that came late takes the lines before from another, and keeps its own") {
  const Run run;
  run.write("node0");
  const auto whole = ledger_path(run.folder.path(), "node0"), late = ledger_path(run.folder.path(), "node1");
  const auto append = [&](const std::filesystem::path& path, int64_t first, int64_t end, uint64_t view) {
    LedgerWriter writer(path, first);
    for (int64_t step = first; step < end; ++step) {
      LedgerRecord record = run.record(step);
      record.view.number = view;
      writer.append(record);
    }
  };
  append(late, 0, 4, 70);    // of an earlier life
  append(late, 12, 20, 70);  // since it came back
  CHECK(ledger_complete_until(late) == 4);
  CHECK(ledger_complete_until(whole) == run.steps);
  CHECK(ledger_complete_until(run.folder / "none") == 0);

  auto range = LedgerRange::find(whole, 4, 12);
  REQUIRE(range.has_value());
  const std::string lines = range->read(0, range->bytes());
  CHECK(std::count(lines.begin(), lines.end(), '\n') == 8);
  const auto received = run.folder.write("received", lines + "{\"step\":12,");  // the end was torn off
  merge_ledger(late, received);
  CHECK(ledger_complete_until(late) == 20);
  std::filesystem::remove(whole);
  CHECK(run.verify().steps == 20);
  const auto files = read_ledgers(run.folder.path());
  REQUIRE(files.size() == 1);
  CHECK(files[0].records[3].view.number == 70);
  CHECK(files[0].records[4].view.number == 1);

  // What is there already is not taken twice, and the writer goes on behind it.
  merge_ledger(late, received);
  LedgerWriter(late, 20).append(run.record(20));
  CHECK(ledger_complete_until(late) == 21);
}

TEST_CASE("the lines of some steps are read piece by piece, also when others were merged in meanwhile") {
  const Run run;
  run.write("node0");
  const auto whole = ledger_path(run.folder.path(), "node0"), late = ledger_path(run.folder.path(), "node1");
  std::string expected;
  for (int64_t step = 12; step < 20; ++step) {
    LedgerWriter(late, step).append(run.record(step));
    if (step >= 14 && step < 18) expected += to_line(run.record(step)) + '\n';
  }
  CHECK_FALSE(LedgerRange::find(late, 14, 21).has_value());  // it has not come that far
  CHECK_FALSE(LedgerRange::find(run.folder / "none", 0, 1).has_value());
  const auto before = LedgerRange::find(late, 3, 12);
  REQUIRE(before.has_value());
  CHECK(before->bytes() == 0);
  auto range = LedgerRange::find(late, 14, 18);
  REQUIRE(range.has_value());
  CHECK(range->bytes() == expected.size());
  const std::string first = range->read(0, 100);
  merge_ledger(late, whole);  // its lines are in another place of another file now
  CHECK(first + range->read(100, expected.size()) == expected);
  CHECK(range->read(expected.size(), 100).empty());
  range = LedgerRange::find(late, 14, 18);
  REQUIRE(range.has_value());
  CHECK(range->read(0, expected.size()) == expected);
}

TEST_CASE("a merge that fails leaves nothing behind") {
  const Run run;
  run.write("node0");
  const auto path = ledger_path(run.folder.path(), "node1");
  std::filesystem::create_directories(path / "in the way");  // no file can take its name
  CHECK_THROWS_AS(merge_ledger(path, ledger_path(run.folder.path(), "node0")), Error);
  CHECK_FALSE(std::filesystem::exists(path.string() + ".part"));
}
