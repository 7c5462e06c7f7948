#include "tests/support/leftovers.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <vector>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/process.hpp"

namespace troupe::test {

namespace {

constexpr int kRoundsMax = 100;  // what is killed may have started others
constexpr std::chrono::milliseconds kDeathPatience{1000};

bool bears(const std::string& environment, const std::string& mark) {
  return environment.starts_with(mark + '\0') || environment.find('\0' + mark + '\0') != std::string::npos;
}

// Returns whether there were any, when they have ended. A process that is gone, or not ours to look at, has
// no environment.
bool kill_marked(const std::string& mark) {
  std::vector<pid_t> killed;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", failed)) {
    const pid_t id = pid_t(std::atoi(entry.path().filename().c_str()));
    if (id <= 0 || id == getpid()) continue;
    std::ifstream in(entry.path() / "environ", std::ios::binary);
    const std::string environment{std::istreambuf_iterator<char>(in), {}};
    if (!bears(environment, mark)) continue;
    kill(id, SIGKILL);
    killed.push_back(id);
  }
  for (pid_t id : killed) wait_for_end(id, kDeathPatience);
  return !killed.empty();
}

void kill_all_marked(const std::string& mark) {
  for (int round = 0; round < kRoundsMax && kill_marked(mark); ++round) {
  }
}

}  // namespace

const std::string& leftovers_mark() {
  static const std::string mark = "TROUPE_TEST_RUN=" + std::to_string(getpid()) + "-" +
                                  std::to_string(std::chrono::steady_clock::now().time_since_epoch().count());
  return mark;
}

void kill_leftovers() {
  if (std::getenv("TROUPE_TEST_RUN") != nullptr) kill_all_marked(leftovers_mark());
}

Keeper::Keeper() {
  const std::string& mark = leftovers_mark();  // with the id of this process
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe to the keeper of test processes");
  id_ = fork();
  if (id_ < 0) throw std::runtime_error("cannot start the keeper of test processes");
  if (id_ == 0) {
    setsid();
    dup2(ends[0], 0);
    close_range(1, ~0U, 0);  // nobody shall wait for what it never says
    char none = 0;
    while (read(0, &none, 1) < 0 && errno == EINTR) {
    }
    kill_all_marked(mark);
    _exit(0);
  }
  close(ends[0]);
  life_line_ = ends[1];
}

Keeper::~Keeper() {
  close(life_line_);
  waitpid(id_, nullptr, 0);
}

}  // namespace troupe::test
