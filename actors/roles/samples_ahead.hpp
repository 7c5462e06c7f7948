// Samples of slots that were made before they are asked for. Keeps at most `most`; those that are hinted at
// stay until they are taken, and push out what no hint names any more. Plain; used by one actor.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "actors/messages.hpp"

namespace troupe::actors {

class SamplesAhead {
 public:
  using Make = std::function<std::shared_ptr<const Batch>(int64_t step, uint32_t slot)>;

  SamplesAhead(size_t most, Make make) : most_(most), make_(std::move(make)) {}

  void prefetch(const PrefetchSamples& hint) {
    const auto hinted = [&](const SlotSamples& one) {
      return one.step == hint.step &&
             std::find(hint.slots.begin(), hint.slots.end(), one.slot) != hint.slots.end();
    };
    std::erase_if(ahead_, [&](const SlotSamples& one) { return one.step < hint.step; });
    for (const uint32_t slot : hint.slots) {
      if (find(hint.step, slot) != ahead_.end()) continue;
      if (ahead_.size() >= most_) {
        const auto idle = std::find_if_not(ahead_.begin(), ahead_.end(), hinted);
        if (idle == ahead_.end()) return;
        ahead_.erase(idle);
      }
      ahead_.push_back({hint.step, slot, make_(hint.step, slot)});
    }
  }

  SlotSamples take(int64_t step, uint32_t slot) {
    const auto found = find(step, slot);
    if (found == ahead_.end()) return {step, slot, make_(step, slot)};
    SlotSamples taken = std::move(*found);
    ahead_.erase(found);
    return taken;
  }

 private:
  std::list<SlotSamples>::iterator find(int64_t step, uint32_t slot) {
    return std::find_if(ahead_.begin(), ahead_.end(),
                        [&](const SlotSamples& one) { return one.step == step && one.slot == slot; });
  }

  const size_t most_;
  const Make make_;
  std::list<SlotSamples> ahead_;  // the oldest first
};

}  // namespace troupe::actors
