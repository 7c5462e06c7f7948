// What graph_cache.hpp needs of a device that launches many calls at once, and nothing of CUDA itself. One
// thread at a time. Errors are Error(device) that names the call; a graph that failed is of no further use.
#pragma once

#include <memory>

#include "kernels/cuda/call_sequence.hpp"

namespace troupe::kernels {

// A graph of a CallSequence. Its calls are named by their index there.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;  // waits for its last launch
  // Host memory for the inputs of all copies to the device, at least `bytes`; the caller fills it before a
  // launch. Waits until the last launch has read it. It moves only to grow: after that every copy is set
  // again. False when there is no memory for so many: the graph is of no further use.
  virtual bool reserve_inputs(size_t bytes) = 0;
  virtual char* inputs() = 0;
  // A kernel's arguments and grid from now on, and where a copy's bytes come from and go.
  virtual void set_kernel(size_t index, const KernelCall& call) = 0;
  virtual void set_copy_in(size_t index, void* to, const void* from, size_t bytes) = 0;
  // In the order of the stream; false, and nothing runs, where there is no memory for it.
  virtual bool launch() = 0;
};

class GraphDevice {
 public:
  virtual ~GraphDevice() = default;
  // The calls as a graph, with its copies to the device from the start of its inputs on; makes none of them.
  // Null when there is no memory for one more graph.
  virtual std::unique_ptr<DeviceGraph> capture(const CallSequence& calls) = 0;
};

}  // namespace troupe::kernels
