#include <csignal>
#include <fstream>
#include <memory>
#include <set>

#include <doctest/doctest.h>

#include "comm/ring.hpp"
#include "kernels/base/hash.hpp"
#include "tests/comm/ring_harness.hpp"
#include "tests/support/process.hpp"

using namespace troupe;
using namespace troupe::test;

namespace {

constexpr std::chrono::seconds kLong{60};

struct Company {
  TemporaryFolder folder;
  std::vector<std::unique_ptr<Process>> members;
};

// `silence_ms` bounds how long a member that says nothing is waited for.
std::unique_ptr<Company> start(size_t ranks, const std::string& transport, int steps, int elements,
                               int silence_ms) {
  auto company = std::make_unique<Company>();
  for (size_t rank = 0; rank < ranks; ++rank) {
    std::vector<std::string> words{
        RING_MEMBER,           std::to_string(rank),     std::to_string(ranks),     transport,
        std::to_string(steps), std::to_string(elements), std::to_string(silence_ms)};
    for (size_t other = 0; other < ranks; ++other)
      words.push_back(company->folder / fmt::format("address.{}", other));
    company->members.push_back(std::make_unique<Process>(words));
  }
  return company;
}

std::string last_line(const std::string& text) {
  const size_t end = text.find_last_not_of('\n');
  const size_t begin = text.rfind('\n', end);
  return text.substr(begin == text.npos ? 0 : begin + 1, end == text.npos ? 0 : end - begin);
}

// Everyone but `victim` must end with an error that names it; gives the longest time that took.
void check_blame(Company& company, size_t victim, const std::string& kind) {
  const std::string wanted = fmt::format("lost {} {}", victim, kind);
  for (size_t rank = 0; rank < company.members.size(); ++rank) {
    if (rank == victim) continue;
    const auto result = company.members[rank]->wait(kLong);
    REQUIRE(result.has_value());
    CAPTURE(rank);
    CAPTURE(result->err);
    CHECK(last_line(result->out).substr(0, wanted.size()) == wanted);
    CHECK(result->code == 1);
  }
}

}  // namespace

TEST_CASE("processes end with the digest of the plain sum, over tcp and shared memory") {
  kernels::BlockLayout layout;
  layout.append(300'001, 300'001);
  for (const std::string transport : {"tcp", "shm"})
    for (const size_t ranks : {2u, 4u}) {
      const auto total = plain_total(layout, ranks, {24, 5});
      const std::string wanted = sha256_hex(total.mantissa.data(), total.mantissa.size() * 4);
      auto company = start(ranks, transport, 2, 300'001, 30'000);
      for (auto& member : company->members) {
        const auto result = member->wait(kLong);
        REQUIRE(result.has_value());
        CAPTURE(transport);
        CHECK(result->code == 0);
        CHECK(result->out == fmt::format("step 0 {0}\nstep 1 {0}\ndone\n", wanted));
      }
    }
}

TEST_CASE("a member killed in the middle is lost to all others, who name it within seconds") {
  for (const std::string transport : {"tcp", "shm"}) {
    CAPTURE(transport);
    auto company = start(4, transport, 1'000'000, 100'000, 30'000);
    REQUIRE(company->members[0]->wait_for_output("step 3", kLong));
    const auto killed = comm::Clock::now();
    company->members[2]->signal(SIGKILL);
    check_blame(*company, 2, "peer lost");
    CHECK(comm::Clock::now() - killed <
          std::chrono::seconds(20));  // milliseconds where the machine is not loaded
  }
}

TEST_CASE("a member that is stopped is named by all others once it has been silent for too long") {
  for (const std::string transport : {"tcp", "shm"}) {
    CAPTURE(transport);
    auto company = start(4, transport, 1'000'000, 100'000, 3'000);
    REQUIRE(company->members[0]->wait_for_output("step 3", kLong));
    company->members[1]->signal(SIGSTOP);
    check_blame(*company, 1, "timeout");
    company->members[1]->signal(SIGCONT);
    const auto result = company->members[1]->wait(kLong);  // finds itself alone, and ends as well
    REQUIRE(result.has_value());
    CHECK(result->code == 1);
  }
}

TEST_CASE("the memory that members share has no name, so that killed processes leave none behind") {
  auto company = start(3, "shm", 1'000'000, 100'000, 30'000);
  REQUIRE(company->members[0]->wait_for_output("step 1", kLong));
  std::ifstream maps(fmt::format("/proc/{}/maps", company->members[0]->id()));
  int shared = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find(" rw-s ") == line.npos) continue;
    CAPTURE(line);
    CHECK(line.find("/memfd:troupe-bulk (deleted)") != line.npos);
    ++shared;
  }
  CHECK(shared > 0);
}
