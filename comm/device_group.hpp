// Devices of a view's members that add integers among themselves, without the host: NCCL, where it can run. A
// group is formed anew for each view, by all members, each with the others' places and one id; what fails
// leaves it, and the view ends as with a broken ring. One thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <set>
#include <span>
#include <string>

#include "comm/bulk.hpp"

namespace troupe::kernels {
class DeviceRuntime;
}

namespace troupe::comm {

class DeviceGroup {
 public:
  virtual ~DeviceGroup() = default;
  // Names this device among those of all machines, and what adds there; empty: it cannot be in a group.
  virtual std::string place() const = 0;
  // For a group that is about to be formed: by one member, for all.
  virtual std::string new_id() const = 0;
  // Leaves the group before. Throws Error(cancelled) soon after `cancelled` has been set, Error(timeout),
  // Error(device).
  virtual void join(const std::string& id, size_t position, size_t size,
                    std::shared_ptr<const std::atomic<bool>> cancelled, Deadline deadline) = 0;
  // In the order of the runtime's work: `count` integers of its memory become their sums over all members,
  // which all call this with the same counts in the same order. Throws like join().
  virtual void add(kernels::DeviceRuntime& runtime, int64_t* values, int64_t count, Deadline deadline) = 0;
  // Until the runtime's work is done. Throws like join().
  virtual void wait(kernels::DeviceRuntime& runtime, Deadline deadline) = 0;
  // At once, whatever is under way.
  virtual void leave() = 0;
};

// By the places of all members: each has a device of its own, and the same adds there. A place is "DEVICE
// WITH".
inline bool can_form_group(std::span<const std::string> places) {
  const auto with = [](const std::string& place) {
    return place.substr(std::min(place.find(' '), place.size()));
  };
  const std::set<std::string> devices(places.begin(), places.end());
  return !places.empty() && devices.size() == places.size() &&
         std::all_of(places.begin(), places.end(), [&](const std::string& place) {
           return !place.empty() && with(place) == with(places[0]);
         });
}

}  // namespace troupe::comm
