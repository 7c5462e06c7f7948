#include "tests/faults/hosts.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include <unistd.h>

#include "tests/support/process.hpp"

namespace troupe::test {

namespace {

using Words = std::vector<std::string>;

constexpr char kSpaces[] = "/run/netns";
const std::string kPrefix = "troupe-test-";  // then the process's id and the host's name
const std::string kHub = "hub";              // the switches' own namespace
const std::string kSwitches[] = {"switch0", "switch1"};
const std::string kCable[] = {"cable0", "cable1"};  // its ends

void must(const Words& command) {
  const ProcessResult result = run(command);
  if (result.code == 0) return;
  std::string text;
  for (const std::string& word : command) text += word + " ";
  throw std::runtime_error(text + "failed: " + result.err);
}

// `ip` in a namespace.
void ip(const std::string& space, Words words) {
  words.insert(words.begin(), {"ip", "-n", space});
  must(words);
}

std::string port(const std::string& host) {
  return "to-" + host;
}

std::vector<std::string> spaces_with(const std::string& prefix) {
  std::vector<std::string> out;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(kSpaces, none))
    if (const std::string name = entry.path().filename(); name.starts_with(prefix)) out.push_back(name);
  return out;
}

void remove_leftovers() {
  for (const std::string& name : spaces_with(kPrefix)) {
    const pid_t owner = pid_t(std::atoi(name.c_str() + kPrefix.size()));
    if (owner > 0 && kill(owner, 0) != 0 && errno == ESRCH) run({"ip", "netns", "delete", name});
  }
}

}  // namespace

std::string Hosts::what_is_missing() {
  if (geteuid() != 0) return "network namespaces need root";
  try {
    Hosts hosts;
    hosts.add("try");
    hosts.slow("try", 1000);
    must(hosts.on("try", {"true"}));  // some containers make a namespace, and let no program into it
    return "";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

Hosts::Hosts() {
  remove_leftovers();
  try {
    make_switches();
  } catch (...) {
    remove_all();
    throw;
  }
}

void Hosts::make_switches() const {
  must({"ip", "netns", "add", space(kHub)});
  for (const std::string& name : kSwitches) {
    ip(space(kHub), {"link", "add", name, "type", "bridge"});
    ip(space(kHub), {"link", "set", name, "up"});
  }
  ip(space(kHub), {"link", "add", kCable[0], "type", "veth", "peer", "name", kCable[1]});
  for (size_t end = 0; end < 2; ++end)
    ip(space(kHub), {"link", "set", kCable[end], "master", kSwitches[end], "up"});
}

Hosts::~Hosts() {
  try {
    remove_all();
  } catch (const std::exception&) {  // the next one finds them
  }
}

void Hosts::remove_all() const {
  for (const std::string& name : spaces_with(space(""))) run({"ip", "netns", "delete", name});
}

std::string Hosts::space(const std::string& host) const {
  return kPrefix + std::to_string(getpid()) + "-" + host;
}

void Hosts::add(const std::string& host, int side) {
  const std::string address = "10.77.0." + std::to_string(addresses_.size() + 1);
  must({"ip", "netns", "add", space(host)});
  must({"ip", "link", "add", "name", "eth0", "netns", space(host), "type", "veth", "peer", "name", port(host),
        "netns", space(kHub)});
  ip(space(kHub), {"link", "set", port(host), "master", kSwitches[side], "up"});
  ip(space(host), {"address", "add", address + "/24", "dev", "eth0"});
  ip(space(host), {"link", "set", "eth0", "up"});
  ip(space(host), {"link", "set", "lo", "up"});
  addresses_[host] = address;
}

std::vector<std::string> Hosts::on(const std::string& host, std::vector<std::string> command) const {
  command.insert(command.begin(), {"ip", "netns", "exec", space(host)});
  return command;
}

void Hosts::unplug(const std::string& host) const {
  ip(space(kHub), {"link", "set", port(host), "down"});
}
void Hosts::plug(const std::string& host) const {
  ip(space(kHub), {"link", "set", port(host), "up"});
}
void Hosts::part() const {
  ip(space(kHub), {"link", "set", kCable[0], "down"});
}
void Hosts::join() const {
  ip(space(kHub), {"link", "set", kCable[0], "up"});
}

void Hosts::slow(const std::string& host, int kbit_per_second) const {
  const std::string rate = std::to_string(kbit_per_second) + "kbit";
  const std::pair<std::string, std::string> ends[] = {{space(host), "eth0"}, {space(kHub), port(host)}};
  for (const auto& [where, device] : ends)
    must({"tc", "-n", where, "qdisc", "add", "dev", device, "root", "tbf", "rate", rate, "burst", "16k",
          "limit", "32k"});
}

}  // namespace troupe::test
