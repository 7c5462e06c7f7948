#include "actors/engines/slot_progress.hpp"

#include <algorithm>

namespace troupe::actors {

void SlotProgress::reached(uint32_t slot, int64_t block) {
  const std::lock_guard lock(mutex_);
  reached_[slot] = block;
  moved_.notify_all();
}

bool SlotProgress::wait(const scheduler::SlotSet& slots, int64_t block,
                        std::chrono::milliseconds most) const {
  const std::vector<uint32_t> wanted = slots.to_vector();
  std::unique_lock lock(mutex_);
  return moved_.wait_for(lock, most, [&] {
    return std::all_of(wanted.begin(), wanted.end(), [&](uint32_t slot) {
      const auto found = reached_.find(slot);
      return found != reached_.end() && found->second <= block;
    });
  });
}

void SlotProgress::reset() {
  const std::lock_guard lock(mutex_);
  reached_.clear();
}

}  // namespace troupe::actors
