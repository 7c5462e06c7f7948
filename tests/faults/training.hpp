// Runs of `troupe train` on the tiny job for tests: command lines, the digest of what came out, the processes
// of a local cluster by name.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include <sys/types.h>

#include "tests/support/process.hpp"

namespace troupe::test {

inline constexpr std::chrono::seconds kRunDeadline{120};  // for one thing to happen
// For a run or a drill from its beginning to its end: what a disturbed run is compared with has as many steps
// as that one came to.
inline constexpr std::chrono::seconds kWholeRunDeadline{600};

// `troupe train` on the tiny job into `out`, for `steps` steps, with reports each `report` steps.
std::vector<std::string> train_command(const std::string& out, int steps, std::vector<std::string> more = {},
                                       int report = 20);
// The last word of `weights DIGEST` on standard output.
std::string digest_of(const ProcessResult& result);
// The last that a client has reported.
int last_step(const ProcessResult& result);
// Runs it to its end, which must be a good one; returns the digest.
std::string train_to_end(const std::string& out, int steps, std::vector<std::string> more = {});
// What a run on one node with one thread gives after so many steps; computed once.
std::string expected_digest(int steps);

// A client whose job is ended by Ctrl-C once a test has seen what it came for.
class Run {
 public:
  // `command` is, or runs, what train_command(out, 100'000, ..., 5) gives; it has reported `first` when this
  // returns, which is another step where a run is resumed.
  Run(std::string out, std::vector<std::string> command, const std::string& first = "step 5/");
  const std::string& out() const { return out_; }
  void wait_for(const std::string& text);
  // For "from step N on: NODES", of which this one has not been waited for yet.
  void wait_for_view(const std::string& nodes);
  ProcessResult wait();
  // Ends it by Ctrl-C; checks the ledger.
  ProcessResult stop();
  // The same, and checks the weights.
  void finish_and_check();

 private:
  const std::string out_;
  Process client_;
  size_t seen_ = 0;  // of what the client has said
};

// Of OUT/cluster.json.
pid_t process_of(const std::string& out, const std::string& node);
bool process_runs(pid_t process);
// Until the log of a node of OUT says `text`, or the time runs out: false.
bool wait_for_log(const std::string& out, const std::string& node, const std::string& text,
                  std::chrono::seconds deadline);
// Waits until no node process of OUT/cluster.json runs any more.
bool all_nodes_end(const std::string& out, std::chrono::seconds deadline);

}  // namespace troupe::test
