#include "kernels/cuda/cuda_graph.hpp"

#include <limits>

#include "kernels/cuda/check.hpp"

namespace troupe::kernels {

namespace {

bool lacks_memory(cudaError_t status) {
  if (status != cudaErrorMemoryAllocation) return false;
  cudaGetLastError();  // answered for: later calls are not to report it
  return true;
}

class CudaGraph final : public DeviceGraph {
 public:
  CudaGraph(int device, cudaStream_t stream, size_t calls)
      : device_(device), stream_(stream), nodes_(calls) {}
  ~CudaGraph() override;
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;

  // In this order; false when there is no memory for it.
  bool capture(const CallSequence& calls, DeviceRuntime& direct);
  bool instantiate();

  bool reserve_inputs(size_t bytes) override;
  char* inputs() override { return inputs_; }
  void set_kernel(size_t index, const KernelCall& call) override;
  void set_copy_in(size_t index, void* to, const void* from, size_t bytes) override;
  bool launch() override;

 private:
  struct Node {
    cudaGraphNode_t node = nullptr;
    cudaKernelNodeParams kernel{};
  };
  void capture_call(const CallSequence& calls, size_t index, DeviceRuntime& direct);
  cudaGraphNode_t last_node(cudaGraphNodeType type) const;
  void activate() const { check_cuda(cudaSetDevice(device_), "cannot use GPU {}", device_); }

  int device_;
  cudaStream_t stream_;
  std::vector<Node> nodes_;  // of the calls that may change
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
  char* inputs_ = nullptr;  // pinned
  size_t input_bytes_ = 0;
  cudaEvent_t launched_ = nullptr;  // after the last launch
};

CudaGraph::~CudaGraph() {
  if (launched_ != nullptr) {
    report_cuda(cudaEventSynchronize(launched_), "waiting for a graph");
    report_cuda(cudaEventDestroy(launched_), "giving back an event");
  }
  if (executable_ != nullptr) report_cuda(cudaGraphExecDestroy(executable_), "giving back a graph");
  if (graph_ != nullptr) report_cuda(cudaGraphDestroy(graph_), "giving back a graph");
  if (inputs_ != nullptr) report_cuda(cudaFreeHost(inputs_), "giving back pinned memory");
}

// Captures are of this thread alone: other threads may allocate, copy and launch on other streams meanwhile.
bool CudaGraph::capture(const CallSequence& calls, DeviceRuntime& direct) {
  if (!reserve_inputs(calls.inputs().size())) return false;
  check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
             "cannot begin to capture {} calls on GPU {}", calls.size(), device_);
  try {
    for (size_t i = 0; i < calls.size(); ++i) capture_call(calls, i, direct);
  } catch (...) {
    cudaGraph_t half = nullptr;
    cudaStreamEndCapture(stream_, &half);  // the stream is to work again; why it failed is on its way already
    if (half != nullptr) report_cuda(cudaGraphDestroy(half), "giving back a graph");
    cudaGetLastError();
    throw;
  }
  check_cuda(cudaStreamEndCapture(stream_, &graph_), "cannot capture {} calls on GPU {}", calls.size(),
             device_);
  return true;
}

void CudaGraph::capture_call(const CallSequence& calls, size_t index, DeviceRuntime& direct) {
  Node& node = nodes_[index];
  if (const auto* copy = std::get_if<CallSequence::CopyIn>(&calls[index])) {
    check_cuda(cudaMemcpyAsync(copy->to, inputs_ + copy->at, copy->bytes, cudaMemcpyHostToDevice, stream_),
               "cannot capture a copy of {} bytes to GPU {}", copy->bytes, device_);
    node.node = last_node(cudaGraphNodeTypeMemcpy);
    return;
  }
  calls.make(index, direct);
  if (!std::holds_alternative<CallSequence::Kernel>(calls[index])) return;
  node.node = last_node(cudaGraphNodeTypeKernel);
  check_cuda(cudaGraphKernelNodeGetParams(node.node, &node.kernel),
             "cannot read a kernel of a graph on GPU {}", device_);
}

// That of the call just captured: the one that the stream's next call would wait for.
cudaGraphNode_t CudaGraph::last_node(cudaGraphNodeType type) const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaGraphNode_t* nodes = nullptr;
  const cudaGraphEdgeData* edges = nullptr;
  size_t count = 0;
  check_cuda(cudaStreamGetCaptureInfo(stream_, &status, nullptr, nullptr, &nodes, &edges, &count),
             "cannot follow a capture on GPU {}", device_);
  cudaGraphNodeType found = cudaGraphNodeTypeEmpty;
  if (status == cudaStreamCaptureStatusActive && count == 1)
    check_cuda(cudaGraphNodeGetType(nodes[0], &found), "cannot read a node of a graph on GPU {}", device_);
  if (found != type)
    throw error(ErrorKind::device,
                "capturing on GPU {} left {} last nodes, one of them of type {}, in status {}, where one of "
                "type {} was due",
                device_, count, int(found), int(status), int(type));
  return nodes[0];
}

bool CudaGraph::instantiate() {
  cudaError_t status = cudaGraphInstantiate(&executable_, graph_, 0);
  if (status == cudaSuccess) status = cudaGraphUpload(executable_, stream_);
  if (lacks_memory(status)) return false;
  check_cuda(status, "cannot make a graph of {} calls on GPU {}", nodes_.size(), device_);
  return true;
}

bool CudaGraph::reserve_inputs(size_t bytes) {
  activate();
  if (launched_ != nullptr) check_cuda(cudaEventSynchronize(launched_), "a graph on GPU {} failed", device_);
  if (bytes <= input_bytes_) return true;
  if (inputs_ != nullptr) check_cuda(cudaFreeHost(inputs_), "cannot give back pinned memory");
  inputs_ = nullptr;
  input_bytes_ = 0;
  void* memory = nullptr;
  const cudaError_t status = cudaHostAlloc(&memory, 2 * bytes, cudaHostAllocDefault);
  if (lacks_memory(status)) return false;
  check_cuda(status, "cannot allocate {} bytes of pinned memory", 2 * bytes);
  inputs_ = static_cast<char*>(memory);
  input_bytes_ = 2 * bytes;
  return true;
}

void CudaGraph::set_kernel(size_t index, const KernelCall& call) {
  TROUPE_CHECK(call.blocks >= 1 && call.blocks <= std::numeric_limits<int32_t>::max(), "a grid of {} blocks",
               call.blocks);
  void* arguments[] = {const_cast<void*>(call.kernel)};
  cudaKernelNodeParams params = nodes_[index].kernel;
  params.gridDim = {unsigned(call.blocks), 1, 1};
  params.kernelParams = arguments;
  params.extra = nullptr;
  check_cuda(cudaGraphExecKernelNodeSetParams(executable_, nodes_[index].node, &params),
             "cannot set {} with {} blocks in a graph on GPU {}", call.name, call.blocks, device_);
}

void CudaGraph::set_copy_in(size_t index, void* to, const void* from, size_t bytes) {
  check_cuda(cudaGraphExecMemcpyNodeSetParams1D(executable_, nodes_[index].node, to, from, bytes,
                                                cudaMemcpyHostToDevice),
             "cannot set a copy of {} bytes in a graph on GPU {}", bytes, device_);
}

bool CudaGraph::launch() {
  activate();
  if (launched_ == nullptr)
    check_cuda(cudaEventCreateWithFlags(&launched_, cudaEventDisableTiming), "cannot create an event");
  const cudaError_t status = cudaGraphLaunch(executable_, stream_);
  if (lacks_memory(status)) return false;
  check_cuda(status, "cannot launch a graph of {} calls on GPU {}", nodes_.size(), device_);
  check_cuda(cudaEventRecord(launched_, stream_), "cannot record an event");
  return true;
}

class CudaGraphs final : public GraphDevice {
 public:
  CudaGraphs(DeviceRuntime& direct, int device) : direct_(direct), device_(device) {}

  std::unique_ptr<DeviceGraph> capture(const CallSequence& calls) override {
    auto graph =
        std::make_unique<CudaGraph>(device_, static_cast<cudaStream_t>(direct_.native()), calls.size());
    if (!graph->capture(calls, direct_) || !graph->instantiate()) return nullptr;
    return graph;
  }

 private:
  DeviceRuntime& direct_;
  int device_;
};

}  // namespace

std::unique_ptr<GraphDevice> make_cuda_graphs(DeviceRuntime& direct, int device) {
  return std::make_unique<CudaGraphs>(direct, device);
}

}  // namespace troupe::kernels
