#include "tests/faults/company.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <utility>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tests/faults/folder_watch.hpp"
#include "tests/faults/training.hpp"

namespace troupe::test {

namespace {

using Clock = std::chrono::steady_clock;

const std::string kClient = "client";
constexpr std::streamoff kTailBytes = 4096;  // more than one line of a ledger

// The last whole line of a node's ledger; null when there is none.
nlohmann::json last_record(const std::string& out, const std::string& node) {
  std::ifstream in(out + "/ledger/" + node + ".jsonl", std::ios::binary | std::ios::ate);
  in.seekg(std::max(std::streamoff(0), std::streamoff(in.tellg()) - kTailBytes));
  const std::string tail{std::istreambuf_iterator<char>(in), {}};
  const size_t end = tail.rfind('\n');  // what comes after it is being written
  if (end == 0 || end == std::string::npos) return nullptr;
  const size_t begin = tail.rfind('\n', end - 1) + 1;  // the first line begins at 0, too
  return nlohmann::json::parse(tail.substr(begin, end - begin));
}

// Until `there` says so; it is asked again when a ledger is written to.
template <typename There>
void wait_for_ledgers(const std::string& out, const There& there) {
  const FolderWatch ledgers(out + "/ledger");
  const auto deadline = Clock::now() + kRunDeadline;
  while (!there()) {
    REQUIRE(Clock::now() < deadline);
    ledgers.wait_for_change(std::chrono::seconds(1));
  }
}

}  // namespace

bool have_hosts() {
  static const std::string missing = Hosts::what_is_missing();
  if (!missing.empty()) MESSAGE("not tested, no hosts in small can be made: ", missing);
  return missing.empty();
}

Company::Company(const std::vector<std::string>& left, const std::vector<std::string>& right, int patience_ms,
                 const std::string& more)
    : more_("transport = \"tcp\"\npatience_ms = " + std::to_string(patience_ms) + "\n" + more) {
  for (const auto& [names, side] : {std::pair(left, 0), std::pair(right, 1)})
    for (const std::string& name : names) {
      hosts.add(name, side);
      addresses_.push_back({name, hosts.address(name) + ":7000"});
    }
  hosts.add(kClient);
}

Company::~Company() {
  if (std::uncaught_exceptions() == 0) return;
  for (const auto& node : nodes_) {
    node->process.signal(SIGKILL);
    const auto said = node->process.wait(kRunDeadline);
    const std::string log = said ? said->out + said->err : "";
    MESSAGE(log);
  }
}

void Company::start(const std::string& security) {
  write(security);
  for (const auto& [name, address] : addresses_) start_node(name);
}

void Company::start_node(const std::string& name) {
  nodes_.push_back(std::make_unique<Node>(
      hosts.on(name, node_command({"--cluster", folder / "cluster.toml", "--name", name}))));
}

std::string Company::write(const std::string& security) const {
  return folder.write("cluster.toml", cluster_text(addresses_, more_ + security));
}

std::vector<std::string> Company::train(int steps) const {
  return hosts.on(kClient, train_command(out(), steps, {"--cluster", folder / "cluster.toml"}, 5));
}

Process& Company::process(const std::string& node) {
  for (const auto& one : nodes_)
    if (one->name == node) return one->process;
  throw std::runtime_error("no node " + node);
}

int64_t Company::last_step_of(const std::string& node) const {
  const nlohmann::json record = last_record(out(), node);
  return record.is_null() ? -1 : record["step"].get<int64_t>();
}

void Company::wait_for_step_of(const std::string& node, int64_t step) const {
  wait_for_ledgers(out(), [&] { return last_step_of(node) >= step; });
}

void Company::wait_for_steps_of(const std::string& node, const std::vector<std::string>& nodes) const {
  wait_for_ledgers(out(), [&] {
    const nlohmann::json record = last_record(out(), node);
    std::vector<std::string> names;
    if (!record.is_null())
      for (const auto& [name, slots] : record["by"].items()) names.push_back(name);
    return names == nodes;
  });
}

}  // namespace troupe::test
