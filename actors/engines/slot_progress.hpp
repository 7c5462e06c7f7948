// How far the backward passes of a step's slots have come: from which block on their gradients are folded.
// Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>

#include "scheduler/protocol.hpp"

namespace troupe::actors {

class SlotProgress {
 public:
  // All gradients of this slot at `block` or beyond are folded; 0: all of them.
  void reached(uint32_t slot, int64_t block);
  // Waits until that is so for each of `slots`, but not for longer than `most`; whether it is.
  bool wait(const scheduler::SlotSet& slots, int64_t block, std::chrono::milliseconds most) const;
  void reset();  // no slot has begun

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable moved_;
  std::map<uint32_t, int64_t> reached_;  // by slot; not there: it has folded nothing
};

}  // namespace troupe::actors
