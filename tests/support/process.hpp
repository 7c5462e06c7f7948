// Real processes for tests: start a program, read what it says, wait for it with a deadline, send it signals.
// A Process kills and reaps its child when it goes out of scope; what the child has started is killed at the
// end of the test case. One thread at a time.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

namespace troupe::test {

struct ProcessResult {
  int code = 0;     // exit code, or 128 + signal
  std::string out;  // standard output
  std::string err;  // standard error
};

class Process {
 public:
  // arguments[0] is the program. Standard input is empty unless `input` is given.
  explicit Process(std::vector<std::string> arguments, std::string input = {});
  ~Process();
  Process(Process&&) noexcept;
  Process& operator=(Process&&) = delete;

  pid_t id() const { return id_; }
  void signal(int number) const;
  bool running();

  // Reads until `text` has appeared on either stream (on standard error: from there on); false when the
  // process ended or the time ran out before.
  bool wait_for_output(const std::string& text, std::chrono::seconds deadline, size_t err_from = 0);
  // Waits for the end; nullopt (and the process is killed) when the time runs out.
  std::optional<ProcessResult> wait(std::chrono::seconds deadline);
  const std::string& out() const { return out_; }
  const std::string& err() const { return err_; }

 private:
  bool pump(int timeout_ms);  // false: both streams are closed
  void reap(bool block);

  pid_t id_ = -1;
  int out_pipe_ = -1, err_pipe_ = -1;
  std::string out_, err_;
  std::optional<int> status_;
};

// Until the process has ended, reaped or not, or the time runs out: false.
bool wait_for_end(pid_t process, std::chrono::milliseconds deadline);

// Runs to the end; fails the test when that takes longer than the deadline.
ProcessResult run(std::vector<std::string> arguments, std::string input = {},
                  std::chrono::seconds deadline = std::chrono::seconds(120));

// A fresh folder under the system's temporary folder, removed with everything in it at the end of the scope,
// unless TROUPE_TEST_KEEP is set: then what a failed run left can be looked at.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::string write(const std::string& name, const std::string& content) const;  // returns the path

 private:
  std::string path_;
};

// A tmpfs of `size` ("64k") on a folder, gone at the end of the scope. Mounting needs root: ask mounted().
class SmallDisk {
 public:
  SmallDisk(const std::string& folder, const std::string& size);
  ~SmallDisk();
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }

 private:
  std::string folder_;
  bool mounted_ = false;
};

}  // namespace troupe::test
