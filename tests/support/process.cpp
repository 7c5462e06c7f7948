#include "tests/support/process.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/leftovers.hpp"

extern char** environ;

namespace troupe::test {

namespace {

using Clock = std::chrono::steady_clock;

void check(bool good, const char* what) {
  if (!good) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

// A file without a name that holds the child's standard input.
int input_file(const std::string& input) {
  if (input.empty()) return open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int file = memfd_create("input", MFD_CLOEXEC);
  check(file >= 0, "memory for input");
  for (size_t done = 0; done < input.size();) {
    const ssize_t size = write(file, input.data() + done, input.size() - done);
    check(size > 0, "write input");
    done += size_t(size);
  }
  lseek(file, 0, SEEK_SET);
  return file;
}

int milliseconds_until(Clock::time_point end) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
  return left > 0 ? int(left) : 0;
}

}  // namespace

Process::Process(std::vector<std::string> arguments, std::string input) {
  int out[2], err[2];
  check(pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0, "pipe");
  const int in = input_file(input);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  posix_spawn_file_actions_adddup2(&actions, err[1], 2);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const std::string& mark = leftovers_mark();
  const size_t equals = mark.find('=');
  setenv(mark.substr(0, equals).c_str(), mark.c_str() + equals + 1, 1);
  const int code = posix_spawnp(&id_, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(in);
  close(out[1]);
  close(err[1]);
  out_pipe_ = out[0];
  err_pipe_ = err[0];
  if (code != 0) throw std::runtime_error("cannot start " + arguments[0] + ": " + std::strerror(code));
}

Process::Process(Process&& other) noexcept
    : id_(std::exchange(other.id_, -1)),
      out_pipe_(std::exchange(other.out_pipe_, -1)),
      err_pipe_(std::exchange(other.err_pipe_, -1)),
      out_(std::move(other.out_)),
      err_(std::move(other.err_)),
      status_(other.status_) {}

Process::~Process() {
  if (id_ > 0 && !status_) {
    ::kill(id_, SIGKILL);
    reap(true);
  }
  if (out_pipe_ >= 0) close(out_pipe_);
  if (err_pipe_ >= 0) close(err_pipe_);
}

void Process::signal(int number) const {
  if (id_ > 0 && !status_) ::kill(id_, number);
}

void Process::reap(bool block) {
  if (status_ || id_ <= 0) return;
  int status = 0;
  pid_t done = 0;
  do done = waitpid(id_, &status, block ? 0 : WNOHANG);
  while (done < 0 && errno == EINTR);
  if (done == id_) status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool Process::running() {
  reap(false);
  return !status_;
}

bool Process::pump(int timeout_ms) {
  pollfd wait[2] = {{out_pipe_, POLLIN, 0}, {err_pipe_, POLLIN, 0}};
  if (out_pipe_ < 0 && err_pipe_ < 0) return false;
  if (poll(wait, 2, timeout_ms) <= 0) return true;
  int* pipes[2] = {&out_pipe_, &err_pipe_};
  std::string* texts[2] = {&out_, &err_};
  for (int i = 0; i < 2; ++i) {
    if ((wait[i].revents & (POLLIN | POLLHUP)) == 0) continue;
    char part[16384];
    const ssize_t size = read(*pipes[i], part, sizeof part);
    if (size > 0) texts[i]->append(part, size_t(size));
    if (size == 0) close(std::exchange(*pipes[i], -1));
  }
  return true;
}

bool Process::wait_for_output(const std::string& text, std::chrono::seconds deadline, size_t err_from) {
  const auto end = Clock::now() + deadline;
  while (out_.find(text) == std::string::npos && err_.find(text, err_from) == std::string::npos) {
    const int left = milliseconds_until(end);
    if (left == 0 || !pump(left)) return false;
  }
  return true;
}

std::optional<ProcessResult> Process::wait(std::chrono::seconds deadline) {
  const auto end = Clock::now() + deadline;
  // A grandchild may keep the pipes open: the end of the child itself ends the wait.
  while (running() && milliseconds_until(end) > 0)
    if (!pump(std::min(50, milliseconds_until(end))))
      wait_for_end(id_, std::chrono::milliseconds(milliseconds_until(end)));
  const bool ended = status_.has_value();
  if (!ended) {
    ::kill(id_, SIGKILL);
    reap(true);
  }
  while (true) {  // what is still in the pipes
    const size_t before = out_.size() + err_.size();
    const int open_before = int(out_pipe_ >= 0) + int(err_pipe_ >= 0);
    if (!pump(0)) break;
    if (out_.size() + err_.size() == before && int(out_pipe_ >= 0) + int(err_pipe_ >= 0) == open_before)
      break;
  }
  if (!ended) return std::nullopt;
  return ProcessResult{*status_, out_, err_};
}

bool wait_for_end(pid_t process, std::chrono::milliseconds deadline) {
  const int descriptor = int(syscall(SYS_pidfd_open, process, 0));
  if (descriptor < 0) return true;  // it is gone
  pollfd wait = {descriptor, POLLIN, 0};
  const bool ended = poll(&wait, 1, int(deadline.count())) == 1;
  close(descriptor);
  return ended;
}

ProcessResult run(std::vector<std::string> arguments, std::string input, std::chrono::seconds deadline) {
  std::string command;
  for (const std::string& argument : arguments) command += argument + " ";
  Process process(std::move(arguments), std::move(input));
  auto result = process.wait(deadline);
  if (!result)
    throw std::runtime_error(command + "did not end in " + std::to_string(deadline.count()) +
                             " s; it said:\n" + process.out() + process.err());
  return *std::move(result);
}

TemporaryFolder::TemporaryFolder() {
  std::string name = std::filesystem::temp_directory_path() / "troupe-test-XXXXXX";
  check(mkdtemp(name.data()) != nullptr, "temporary folder");
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  if (std::getenv("TROUPE_TEST_KEEP") != nullptr) return;
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

SmallDisk::SmallDisk(const std::string& folder, const std::string& size) : folder_(folder) {
  std::filesystem::create_directories(folder);
  mounted_ = mount("none", folder.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
}

SmallDisk::~SmallDisk() {
  if (mounted_) umount2(folder_.c_str(), MNT_DETACH);
}

std::string TemporaryFolder::write(const std::string& name, const std::string& content) const {
  const std::string path = *this / name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

}  // namespace troupe::test
