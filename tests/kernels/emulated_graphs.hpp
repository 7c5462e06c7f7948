// Graphs of an emulated device: nothing runs before a launch, what was captured is kept apart from the
// sequence it came from, and host memory that a graph no longer reads is overwritten.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/cuda/emulated.hpp"
#include "kernels/cuda/graph_runtime.hpp"

namespace troupe::testing {

// What happened, and what is to happen.
struct GraphLog {
  int captures = 0, alive = 0, launches = 0, kernels_set = 0, copies_set = 0;
  int room = 1 << 20;                // for so many graphs at a time
  size_t input_bytes_max = 1 << 30;  // of a graph
  int fails_at_launch = -1;          // the launch of this number throws
  int no_room_at_launch = -1;        // the launch of this number finds no memory
};

class EmulatedGraph final : public kernels::DeviceGraph {
 public:
  EmulatedGraph(const kernels::CallSequence& calls, kernels::DeviceRuntime& runtime, GraphLog& log)
      : runtime_(runtime), log_(log), nodes_(calls.size()) {
    reserve_inputs(calls.inputs().size());
    for (size_t i = 0; i < calls.size(); ++i) {
      if (const auto* kernel = std::get_if<kernels::CallSequence::Kernel>(&calls[i]))
        nodes_[i].call.add(calls.kernel(*kernel));
      else if (const auto* copy = std::get_if<kernels::CallSequence::CopyIn>(&calls[i]))
        nodes_[i] = {{}, copy->to, inputs_.data() + copy->at, copy->bytes};
      else
        std::visit([&](const auto& call) { add_other(nodes_[i].call, call); }, calls[i]);
    }
    ++log_.alive;
  }
  ~EmulatedGraph() override { --log_.alive; }
  EmulatedGraph(const EmulatedGraph&) = delete;
  EmulatedGraph& operator=(const EmulatedGraph&) = delete;

  bool reserve_inputs(size_t bytes) override {
    if (bytes > log_.input_bytes_max) return false;
    if (bytes > inputs_.size()) {
      std::ranges::fill(inputs_, char(0xff));
      retired_.push_back(std::move(inputs_));
      inputs_.assign(bytes, char(0xff));
    }
    return true;
  }
  char* inputs() override { return inputs_.data(); }
  void set_kernel(size_t index, const kernels::KernelCall& call) override {
    nodes_[index].call.clear();
    nodes_[index].call.add(call);
    ++log_.kernels_set;
  }
  void set_copy_in(size_t index, void* to, const void* from, size_t bytes) override {
    nodes_[index] = {{}, to, from, bytes};
    ++log_.copies_set;
  }
  bool launch() override {
    if (log_.launches == log_.no_room_at_launch) return false;
    if (log_.launches++ == log_.fails_at_launch) throw error(ErrorKind::device, "cannot launch a graph");
    for (const Node& node : nodes_) {
      if (node.call.empty())
        runtime_.copy_in(node.to, node.from, node.bytes);
      else
        node.call.make(0, runtime_);
    }
    return true;
  }

 private:
  struct Node {
    kernels::CallSequence call;  // of this one call; empty: a copy to the device
    void* to = nullptr;
    const void* from = nullptr;
    size_t bytes = 0;
  };
  template <typename Call>
  static void add_other(kernels::CallSequence& one, const Call& call) {
    if constexpr (requires { one.add(call); }) one.add(call);
  }

  kernels::DeviceRuntime& runtime_;
  GraphLog& log_;
  std::vector<Node> nodes_;
  std::vector<char> inputs_;
  std::vector<std::vector<char>> retired_;  // kept, so that reading them shows
};

class EmulatedGraphs final : public kernels::GraphDevice {
 public:
  EmulatedGraphs(kernels::DeviceRuntime& runtime, GraphLog& log) : runtime_(runtime), log_(log) {}

  std::unique_ptr<kernels::DeviceGraph> capture(const kernels::CallSequence& calls) override {
    if (log_.alive >= log_.room || calls.inputs().size() > log_.input_bytes_max) return nullptr;
    ++log_.captures;
    return std::make_unique<EmulatedGraph>(calls, runtime_, log_);
  }

 private:
  kernels::DeviceRuntime& runtime_;
  GraphLog& log_;
};

inline std::unique_ptr<kernels::GraphRuntime> make_graph_runtime(
    GraphLog& log, const kernels::GraphLimits& limits = {},
    kernels::ThreadOrder order = kernels::ThreadOrder::forward) {
  auto direct = kernels::make_emulated_runtime(order);
  auto graphs = std::make_unique<EmulatedGraphs>(*direct, log);
  return std::make_unique<kernels::GraphRuntime>(std::move(direct), std::move(graphs), limits);
}

}  // namespace troupe::testing
