// Devices that add integers among themselves, without the host: NCCL, where it can run. Those of one process
// are driven together, by one thread at a time; a group has those of one process or of several. It is formed
// anew for each view, by all members, each with the others' places and one id; what fails leaves it, and the
// view ends as with a broken ring.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "comm/bulk.hpp"

namespace troupe::kernels {
class DeviceRuntime;
}

namespace troupe::comm {

// One of this process's devices in a sum, in the order of place().
struct Addend {
  kernels::DeviceRuntime* runtime = nullptr;
  int64_t* values = nullptr;  // in its memory
};

// What a group's members start from.
struct GroupPlace {
  std::string id;
  size_t first = 0;  // rank of this process's first device; its others follow
  size_t size = 0;   // devices of all members
};

class DeviceGroup {
 public:
  virtual ~DeviceGroup() = default;
  // Names this process's devices among those of all machines, and what adds there: "DEVICE,DEVICE WITH";
  // empty: they cannot be in a group.
  virtual std::string place() const = 0;
  // For a group that is about to be formed: by one member, for all. Throws Error(device).
  virtual std::string new_id() const = 0;
  // Leaves the group before. Throws Error(cancelled) soon after `cancelled` has been set, Error(timeout),
  // Error(device).
  virtual void join(const GroupPlace& place, std::shared_ptr<const std::atomic<bool>> cancelled,
                    Deadline deadline) = 0;
  // In the order of each runtime's work: `count` integers of each device become their sums over all devices
  // of the group. All members call this with the same counts in the same order. Throws like join().
  virtual void add(std::span<const Addend> devices, int64_t count, Deadline deadline) = 0;
  // Until the runtimes' work is done. Throws like join().
  virtual void wait(std::span<const Addend> devices, Deadline deadline) = 0;
  // At once, whatever is under way.
  virtual void leave() = 0;
};

// The devices of a place.
inline std::vector<std::string> devices_of(const std::string& place) {
  std::vector<std::string> devices;
  const std::string list = place.substr(0, place.find(' '));
  for (size_t at = 0; at < list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    devices.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  return devices;
}

// By the places of all members: each has devices of its own, and the same adds there.
inline bool can_form_group(std::span<const std::string> places) {
  const auto with = [](const std::string& place) {
    return place.substr(std::min(place.find(' '), place.size()));
  };
  std::set<std::string> seen;
  for (const std::string& place : places) {
    const std::vector<std::string> devices = devices_of(place);
    if (devices.empty() || with(place) != with(places[0])) return false;
    for (const std::string& device : devices)
      if (!seen.insert(device).second) return false;
  }
  return !places.empty();
}

// Where the member at `position` stands in a group of all devices: by the members' order, then the devices'.
inline GroupPlace place_among(std::span<const std::string> places, size_t position, std::string id) {
  GroupPlace found{std::move(id), 0, 0};
  for (size_t i = 0; i < places.size(); ++i) {
    if (i == position) found.first = found.size;
    found.size += devices_of(places[i]).size();
  }
  return found;
}

}  // namespace troupe::comm
