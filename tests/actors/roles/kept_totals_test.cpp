#include "actors/roles/kept_totals.hpp"

#include <filesystem>

#include <doctest/doctest.h>

#include "kernels/base/error.hpp"
#include "tests/support/process.hpp"

using namespace troupe;
using actors::KeptTotals;
using actors::TotalsInMemory;

namespace {

constexpr KeptTotals::Limits kLimits{100, 200};

// Of `count` bytes, each with the number of the step.
KeptTotals::Bytes total(int64_t step, size_t count) {
  return std::make_shared<const std::vector<std::byte>>(count, std::byte(step));
}

bool has(const KeptTotals& totals, int64_t step, size_t count) {
  const auto whole = totals.read(step, 0, 10'000);
  return whole && whole->whole_bytes == count && whole->data == std::string(count, char(step));
}

size_t files_in(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder)) return 0;
  return size_t(std::distance(std::filesystem::directory_iterator(folder), {}));
}

}  // namespace

TEST_CASE("totals of consecutive steps are kept, in files beyond the memory allowed, and then dropped") {
  const test::TemporaryFolder folder;
  const std::filesystem::path files = folder / "transfer/totals";
  KeptTotals totals(kLimits, files);
  for (int64_t step = 7; step < 12; ++step) totals.keep(step, total(step, 30));
  CHECK(totals.first() == 7);
  CHECK(files_in(files) == 2);
  for (int64_t step = 7; step < 12; ++step) CHECK(has(totals, step, 30));
  for (const int64_t step : {7, 11}) {  // of a file, and of memory
    const auto part = totals.read(step, 20, 50);
    REQUIRE(part);
    CHECK(part->data == std::string(10, char(step)));
    CHECK(totals.read(step, 1'000, 50)->data.empty());
  }
  CHECK_FALSE(totals.read(6, 0, 10));
  CHECK_FALSE(totals.read(12, 0, 10));
  for (int64_t step = 12; step < 20; ++step) totals.keep(step, total(step, 30));
  CHECK(totals.first() == 11);
  CHECK(files_in(files) == 6);
  for (int64_t step = 11; step < 20; ++step) CHECK(has(totals, step, 30));
  totals.keep(20, total(20, 1000));  // the newest stays, however large
  CHECK(has(totals, 20, 1000));
  totals.keep(21, total(21, 10));
  CHECK(totals.first() == 21);
  CHECK(files_in(files) == 0);
}

TEST_CASE("after a gap nothing of before it is offered, and at the end no file is left") {
  const test::TemporaryFolder folder;
  const std::filesystem::path files = folder / "totals";
  {
    KeptTotals totals(kLimits, files);
    for (const int64_t step : {3, 4, 9}) totals.keep(step, total(step, 60));
    CHECK(totals.first() == 9);
    CHECK_FALSE(totals.read(4, 0, 10));
    CHECK(files_in(files) == 0);
    totals.keep(5, total(5, 60));  // back, as after a state that is older
    CHECK(totals.first() == 5);
    CHECK_FALSE(totals.read(9, 0, 10));
    totals.keep(6, total(6, 60));
    CHECK(files_in(files) == 1);
  }
  CHECK_FALSE(std::filesystem::exists(files));
  std::filesystem::create_directories(files);
  folder.write("totals/3", "of a process that was killed");
  const KeptTotals next(kLimits, files);
  CHECK_FALSE(std::filesystem::exists(files));
}

TEST_CASE("a total that cannot be written is named, and those after it stay") {
  const test::TemporaryFolder folder;
  KeptTotals totals(kLimits, folder / "totals");
  totals.keep(1, total(1, 60));
  folder.write("totals", "in the way");
  try {
    totals.keep(2, total(2, 60));
    FAIL("no error");
  } catch (const Error& problem) {
    CHECK(problem.kind() == ErrorKind::file);
    CHECK(std::string(problem.what()).find("totals/1") != std::string::npos);
  }
  CHECK(totals.first() == 2);
  CHECK(has(totals, 2, 60));
  totals.keep(3, total(3, 30));
  CHECK(has(totals, 3, 30));
}

TEST_CASE("totals on their way are bounded by bytes, but three may always be") {
  TotalsInMemory given(100);
  std::vector<KeptTotals::Bytes> taken;
  for (int i = 0; i < 3; ++i) {
    CHECK(given.have_room());
    taken.push_back(given.add(std::vector<std::byte>(60)));
  }
  CHECK_FALSE(given.have_room());
  taken.pop_back();
  CHECK(given.have_room());
  taken.clear();
  for (int i = 0; i < 9; ++i) {
    CHECK(given.have_room());
    taken.push_back(given.add(std::vector<std::byte>(11)));
  }
  CHECK(given.have_room());
  taken.push_back(given.add(std::vector<std::byte>(1)));
  CHECK_FALSE(given.have_room());
}
