#include "kernels/cuda/fused_attention.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <unordered_map>

#include <nvrtc.h>

#include "kernels/base/hash.hpp"
#include "kernels/cuda/attention_graph.hpp"
#include "kernels/cuda/check.hpp"
#include "kernels/cuda/cuda_runtime.hpp"

namespace troupe::kernels {

namespace {

constexpr int64_t kWorkspaceAlignment = 64;  // as it is promised; attention_graph.cpp says that 16 will do
constexpr size_t kVersionMin = 91000;        // older ones want another least score than minus infinity
constexpr int kGradientCapabilityMax = 99;

std::string words_of(const FusedAttention& a) {
  return fmt::format("{} of {} x {} queries and {} keys, {} heads of {}",
                     a.is_gradient ? "the gradient of attention" : "attention", a.batch, a.queries, a.keys,
                     a.heads, a.head_size);
}

class Handle {
 public:
  explicit Handle(int device) {
    check_cuda(cudaSetDevice(device), "cannot use GPU {}", device);
    check_cudnn(cudnnCreate(&handle_), fmt::format("cannot start cuDNN on GPU {}", device));
  }
  ~Handle() {
    if (cudnnDestroy(handle_) != CUDNN_STATUS_SUCCESS) std::fputs("cuDNN could not end\n", stderr);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  cudnnHandle_t get() const { return handle_; }

 private:
  cudnnHandle_t handle_ = nullptr;
};

using Key = std::array<int64_t, 14>;
struct HashKey {
  size_t operator()(const Key& key) const { return checksum64(key.data(), sizeof key); }
};

Key key_of(const FusedAttention& a) {
  return {a.batch,      a.queries,     a.keys,
          a.heads,      a.head_size,   int64_t(a.causal) | int64_t(a.is_gradient) << 1,
          a.q.stride,   a.k.stride,    a.v.stride,
          a.out.stride, a.dout.stride, a.dq.stride,
          a.dk.stride,  a.dv.stride};
}

// Of delta, which lies in front of the workspace that an engine wants.
int64_t delta_bytes(const FusedAttention& a) {
  if (!a.is_gradient) return 0;
  const int64_t bytes = a.batch * a.heads * a.queries * int64_t(sizeof(float));
  return (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
}

struct Plan {
  std::unique_ptr<cudnn::Descriptor> plan;  // none: there is no engine, or it needs too much
  int64_t workspace = 0;  // in bytes, with delta
};

// In the order in which cuDNN prefers them.
std::vector<cudnn::Descriptor> engines_of(const FusedAttention& attention, cudnnHandle_t handle,
                                          int capability) {
  if (cudnnGetVersion() < kVersionMin || (attention.is_gradient && capability > kGradientCapabilityMax))
    return {};
  return AttentionGraph(attention, handle).engines(nullptr);
}

// Of the first engine that the GPU can run.
Plan make_plan(const FusedAttention& attention, cudnnHandle_t handle, int capability) {
  for (const cudnn::Descriptor& engine : engines_of(attention, handle, capability)) {
    auto plan = std::make_unique<cudnn::Descriptor>(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, "plan");
    plan->set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, handle);
    plan->set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engine.get());
    if (!plan->finalize_if_supported()) continue;
    const int64_t bytes = plan->values<int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, 1).at(0);
    return {std::move(plan), bytes + delta_bytes(attention)};
  }
  return {};
}

// The first, and what tells all of them from others.
std::string names_of(const std::vector<cudnn::Descriptor>& engines) {
  if (engines.empty()) return "none";
  std::string all;
  for (const cudnn::Descriptor& engine : engines) all += AttentionGraph::name_of(engine);
  return fmt::format("{} of {} ({:016x})", AttentionGraph::name_of(engines.front()), engines.size(),
                     checksum64(all.data(), all.size()));
}

// Of GPT-2's shape, which every engine takes.
FusedAttention usual_attention(bool is_gradient) {
  FusedAttention a;
  a.batch = 1;
  a.queries = a.keys = 1024;
  a.heads = 12;
  a.head_size = 64;
  a.causal = true;
  a.is_gradient = is_gradient;
  for (FusedAttention::Rows* rows : {&a.q, &a.k, &a.v, &a.out, &a.dout, &a.dq, &a.dk, &a.dv})
    rows->stride = a.heads * a.head_size;
  return a;
}

}  // namespace

// Engines are named, as cuDNN offers none without the compiler that it loads when it runs; some compile their
// kernels with it. Which of them the GPU can run follows from the rest; asking would build their plans, which
// takes about a second.
std::string attention_numerics(int device) {
  const Handle handle(device);
  const int capability = cuda_capability(device);
  int major = 0, minor = 0;
  if (nvrtcVersion(&major, &minor) != NVRTC_SUCCESS)
    throw error(ErrorKind::device, "cannot read the version of CUDA's run-time compiler");
  return fmt::format("cuDNN {} with engines {} and {}, NVRTC {}.{}", cudnn_version(),
                     names_of(engines_of(usual_attention(false), handle.get(), capability)),
                     names_of(engines_of(usual_attention(true), handle.get(), capability)), major, minor);
}

// Plans stay for good, as graphs launch their kernels; of one that needs too much only that is kept, as a
// stream asks with one workspace_max.
struct CudnnAttention::State {
  Handle handle;
  int capability;
  std::unordered_map<Key, Plan, HashKey> plans;

  State(int device, cudaStream_t stream) : handle(device), capability(cuda_capability(device)) {
    check_cudnn(cudnnSetStream(handle.get(), stream), fmt::format("cannot use cuDNN on GPU {}", device));
  }
  const Plan& plan_of(const FusedAttention& attention) {
    const Key key = key_of(attention);
    const auto found = plans.find(key);
    if (found != plans.end()) return found->second;
    Plan made = make_plan(attention, handle.get(), capability);
    if (size_t(made.workspace) > attention.workspace_max) made.plan.reset();
    return plans.emplace(key, std::move(made)).first->second;
  }
};

CudnnAttention::CudnnAttention(cudaStream_t stream, int device) : stream_(stream), device_(device) {}
CudnnAttention::~CudnnAttention() = default;

CudnnAttention::State& CudnnAttention::state() {
  if (state_ == nullptr) state_ = std::make_unique<State>(device_, stream_);
  return *state_;
}

std::optional<size_t> CudnnAttention::workspace(const FusedAttention& a) {
  const Plan& plan = state().plan_of(a);
  if (plan.plan == nullptr || size_t(plan.workspace) > a.workspace_max) return std::nullopt;
  return size_t(plan.workspace);
}

void CudnnAttention::attend(const FusedAttention& a) {
  const Plan& plan = state().plan_of(a);
  TROUPE_CHECK(plan.plan != nullptr, "cuDNN has no engine for {}", words_of(a));
  auto scale = float(1.0 / std::sqrt(double(a.head_size)));
  float least = -std::numeric_limits<float>::infinity(), one = 1;
  std::vector<int64_t> ids;
  std::vector<void*> addresses;
  const auto give = [&](AttentionGraph::Id id, void* address) {
    ids.push_back(id);
    addresses.push_back(address);
  };
  give(AttentionGraph::q, a.q.data);
  give(AttentionGraph::k, a.k.data);
  give(AttentionGraph::v, a.v.data);
  give(AttentionGraph::out, a.out.data);
  give(AttentionGraph::lse, a.lse);
  give(AttentionGraph::scale, &scale);
  if (a.causal) give(AttentionGraph::least, &least);
  if (a.is_gradient) {
    give(AttentionGraph::one, &one);
    give(AttentionGraph::delta, a.workspace);
    give(AttentionGraph::dout, a.dout.data);
    give(AttentionGraph::dq, a.dq.data);
    give(AttentionGraph::dk, a.dk.data);
    give(AttentionGraph::dv, a.dv.data);
  }
  void* const workspace = static_cast<char*>(a.workspace) + delta_bytes(a);
  cudnn::Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, "addresses");
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, std::span<const int64_t>(ids));
  pack.set_addresses(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, addresses);
  pack.set_addresses(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, {&workspace, 1});
  pack.finalize();
  check_cudnn(cudnnBackendExecute(state_->handle.get(), plan.plan->get(), pack.get()),
              fmt::format("cannot compute {} on GPU {}", words_of(a), device_));
}

}  // namespace troupe::kernels
