// Which sequences of calls become graphs. One that comes for the first time runs call by call; one that comes
// again becomes a graph, which later ones of its form are launched as, after what differs has been set. At
// most `graphs` are kept: when there are so many, a new one takes the place of the least used, and only if it
// came more than twice as often of late, so that more forms in turn than there is room for do not chase each
// other out. Each keeps its calls, about 300 bytes a call, twice its inputs in pinned memory, and what CUDA
// takes for its nodes. One thread at a time.
#pragma once

#include <unordered_map>

#include "kernels/cuda/graph_device.hpp"

namespace troupe::kernels {

struct GraphLimits {
  size_t graphs = 128;
  size_t calls_min = 8;                       // shorter sequences run call by call
  size_t calls_max = 8192;                    // longer ones are cut
  size_t input_bytes_max = size_t{16} << 20;  // of a sequence
};

// How often each of many came of late: counts are halved whenever kWindow have been added, and what is then
// zero is forgotten. So there are at most 2 kWindow.
class RecentCounts {
 public:
  static constexpr size_t kWindow = 1024;
  uint32_t add(uint64_t key);  // returns its count, this time with it
  uint32_t of(uint64_t key) const;
  size_t size() const { return counts_.size(); }

 private:
  std::unordered_map<uint64_t, uint32_t> counts_;
  size_t added_ = 0;
};

class GraphCache {
 public:
  struct Totals {
    int64_t direct = 0;    // sequences that ran call by call
    int64_t captures = 0;  // graphs made
    int64_t launches = 0;  // sequences that ran as a graph
    int64_t updates = 0;   // kernels and copies that were set before a launch
    int64_t evictions = 0;
  };

  // Calls are made through `runtime`. Both outlive this.
  GraphCache(DeviceRuntime& runtime, GraphDevice& device, const GraphLimits& limits);

  // Makes the calls in their order, and may exchange what the sequence keeps for something else. A graph that
  // fails is dropped. One whose inputs have grown beyond the memory there is gives way to single calls.
  void run(CallSequence& calls);

  size_t size() const { return graphs_.size(); }
  const Totals& totals() const { return totals_; }

 private:
  struct Entry {
    std::unique_ptr<DeviceGraph> graph;
    CallSequence calls;            // as the graph has them
    const char* inputs = nullptr;  // where its copies come from
  };
  Entry* find(const CallSequence& calls);
  Entry* make_room_and_capture(const CallSequence& calls, uint32_t times);
  bool launch(Entry& entry, CallSequence& calls);
  void drop(const Entry& entry);
  int64_t update(Entry& entry, const CallSequence& calls, const char* inputs);

  DeviceRuntime& runtime_;
  GraphDevice& device_;
  GraphLimits limits_;
  RecentCounts counts_;  // of forms
  std::vector<Entry> graphs_;
  Totals totals_;
};

}  // namespace troupe::kernels
