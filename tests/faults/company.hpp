// A node on each of several hosts in small, and clients beside them: what is checked when the network between
// them is pulled, parted, slow and healed. Ask have_hosts() first.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/faults/hosts.hpp"
#include "tests/faults/nodes.hpp"
#include "tests/support/process.hpp"

namespace troupe::test {

inline constexpr int kPatienceMs = 2000;
inline constexpr char kInsecure[] = "[security]\ninsecure = true\n";

// Asked once for all cases; false, and the test says so, when there can be no such network.
bool have_hosts();

// A node on each of `left` (switch 0) and `right` (switch 1); clients run on a host beside the left ones.
class Company {
 public:
  // `more` goes into the [cluster] table.
  Company(const std::vector<std::string>& left, const std::vector<std::string>& right,
          int patience_ms = kPatienceMs, const std::string& more = "");
  ~Company();  // what nobody expected is explained by the nodes
  Company(const Company&) = delete;
  Company& operator=(const Company&) = delete;

  // `security` is the table of that name.
  void start(const std::string& security = kInsecure);
  std::string write(const std::string& security) const;
  std::vector<std::string> train(int steps) const;
  std::string out() const { return folder / "run"; }
  // The process of one that was started.
  Process& process(const std::string& node);

  // The last step that `node` has written into its ledger; -1: none.
  int64_t last_step_of(const std::string& node) const;
  // Until it is `step` or a later one.
  void wait_for_step_of(const std::string& node, int64_t step) const;
  // Until the last step that `node` has written into its ledger was computed by `nodes`, and no others.
  void wait_for_steps_of(const std::string& node, const std::vector<std::string>& nodes) const;

  const TemporaryFolder folder;
  Hosts hosts;

 private:
  void start_node(const std::string& name);

  const std::string more_;
  std::vector<NodeAddress> addresses_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

}  // namespace troupe::test
