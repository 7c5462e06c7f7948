// Hosts in small: network namespaces with an address each, plugged into one of two switches that a cable
// joins. What is unplugged, or on the other side of a cable that was pulled, vanishes without a word, as on a
// real network. Needs root and a kernel with bridges, virtual Ethernet and network namespaces: ask
// what_is_missing(). Names bear the id of this process; the first network removes what dead test programs
// have left.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace troupe::test {

class Hosts {
 public:
  // Why there can be no such network here; empty when there can.
  static std::string what_is_missing();

  Hosts();
  ~Hosts();  // whoever still runs on a host keeps running, cut off
  Hosts(const Hosts&) = delete;
  Hosts& operator=(const Hosts&) = delete;

  // A host on switch 0 or 1, up when this returns.
  void add(const std::string& host, int side = 0);
  // Its IP address.
  const std::string& address(const std::string& host) const { return addresses_.at(host); }
  // The command line that runs `command` there, as one process.
  std::vector<std::string> on(const std::string& host, std::vector<std::string> command) const;

  void unplug(const std::string& host) const;
  void plug(const std::string& host) const;
  void part() const;  // the switches
  void join() const;
  // What goes to and from the host passes at this rate, and at most 32 KiB of it wait.
  void slow(const std::string& host, int kbit_per_second) const;

 private:
  std::string space(const std::string& host) const;
  void make_switches() const;
  void remove_all() const;

  std::map<std::string, std::string> addresses_;
};

}  // namespace troupe::test
