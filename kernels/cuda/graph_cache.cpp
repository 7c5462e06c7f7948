#include "kernels/cuda/graph_cache.hpp"

#include <algorithm>

namespace troupe::kernels {

uint32_t RecentCounts::add(uint64_t key) {
  if (++added_ % kWindow == 0) {
    for (auto& [of, count] : counts_) count /= 2;
    std::erase_if(counts_, [](const auto& entry) { return entry.second == 0; });
  }
  return ++counts_[key];
}

uint32_t RecentCounts::of(uint64_t key) const {
  const auto found = counts_.find(key);
  return found == counts_.end() ? 0 : found->second;
}

GraphCache::GraphCache(DeviceRuntime& runtime, GraphDevice& device, const GraphLimits& limits)
    : runtime_(runtime), device_(device), limits_(limits) {}

void GraphCache::run(CallSequence& calls) {
  Entry* entry = nullptr;
  if (calls.size() >= limits_.calls_min) {
    const uint32_t times = counts_.add(calls.form());
    entry = find(calls);
    if (entry == nullptr && times >= 2) entry = make_room_and_capture(calls, times);
  }
  if (entry != nullptr && launch(*entry, calls)) return;
  ++totals_.direct;
  for (size_t i = 0; i < calls.size(); ++i) calls.make(i, runtime_);
}

GraphCache::Entry* GraphCache::find(const CallSequence& calls) {
  const auto same = [&](const Entry& entry) { return entry.calls.has_form_of(calls); };
  const auto found = std::find_if(graphs_.begin(), graphs_.end(), same);
  return found == graphs_.end() ? nullptr : &*found;
}

// Null when no graph is to be made.
GraphCache::Entry* GraphCache::make_room_and_capture(const CallSequence& calls, uint32_t times) {
  if (graphs_.size() >= limits_.graphs) {
    const auto count = [&](const Entry& entry) { return counts_.of(entry.calls.form()); };
    const auto least = std::min_element(graphs_.begin(), graphs_.end(),
                                        [&](const Entry& a, const Entry& b) { return count(a) < count(b); });
    if (least == graphs_.end() || times <= 2 * count(*least)) return nullptr;
    graphs_.erase(least);
    ++totals_.evictions;
  }
  Entry entry{device_.capture(calls), calls};
  if (entry.graph == nullptr) {
    limits_.graphs = graphs_.size();
    return nullptr;
  }
  entry.inputs = entry.graph->inputs();
  ++totals_.captures;
  return &graphs_.emplace_back(std::move(entry));
}

// False, and the graph is dropped, where there is no memory for it or for the calls' inputs.
bool GraphCache::launch(Entry& entry, CallSequence& calls) {
  const auto give_up = [&] {
    drop(entry);
    limits_.graphs = graphs_.size();
    return false;
  };
  try {
    if (!entry.graph->reserve_inputs(calls.inputs().size())) return give_up();
    char* inputs = entry.graph->inputs();
    std::copy(calls.inputs().begin(), calls.inputs().end(), inputs);
    totals_.updates += update(entry, calls, inputs);
    entry.inputs = inputs;
    if (!entry.graph->launch()) return give_up();
  } catch (...) {
    drop(entry);
    throw;
  }
  std::swap(entry.calls, calls);
  ++totals_.launches;
  return true;
}

void GraphCache::drop(const Entry& entry) {
  graphs_.erase(graphs_.begin() + (&entry - graphs_.data()));
}

// Sets what differs from what the graph has, and returns how many of its calls did.
int64_t GraphCache::update(Entry& entry, const CallSequence& calls, const char* inputs) {
  int64_t updates = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    if (const auto* kernel = std::get_if<CallSequence::Kernel>(&calls[i])) {
      const auto& before = std::get<CallSequence::Kernel>(entry.calls[i]);
      if (kernel->call.blocks == before.call.blocks &&
          std::ranges::equal(calls.arguments(*kernel), entry.calls.arguments(before)))
        continue;
      entry.graph->set_kernel(i, calls.kernel(*kernel));
      ++updates;
    } else if (const auto* copy = std::get_if<CallSequence::CopyIn>(&calls[i])) {
      if (*copy == std::get<CallSequence::CopyIn>(entry.calls[i]) && inputs == entry.inputs) continue;
      entry.graph->set_copy_in(i, copy->to, inputs + copy->at, copy->bytes);
      ++updates;
    }
  }
  return updates;
}

}  // namespace troupe::kernels
