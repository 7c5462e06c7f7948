// Attention (Vaswani et al. 2017) and its gradient as graphs of cuDNN operations, in the form that its fused
// kernels are found by (Dao et al. 2022): softmax(q k^T / sqrt(D)) v with the logarithms of the sums, and
// from these the weights again in the backward pass. Nothing here needs a GPU.
#pragma once

#include <deque>

#include "kernels/cuda/cudnn.hpp"
#include "kernels/cuda/runtime.hpp"

namespace troupe::kernels {

class AttentionGraph {
 public:
  // What the graph's tensors are called when it is executed. scale, least and one are f32 of the host; delta
  // (batch, heads, queries) is f32 of the device, what a backward pass keeps between two of its kernels.
  enum Id : int64_t { q = 1, k, v, out, lse, dout, dq, dk, dv, delta, scale, least, one };

  // Of the attention its shape, strides, causal and is_gradient count. `handle` is null where no GPU is.
  AttentionGraph(const FusedAttention& attention, cudnnHandle_t handle);

  // What cuDNN offers for it, best first, without engines that may give other bits another time. `device` is
  // a CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, or null: that of the handle.
  std::vector<cudnn::Descriptor> engines(cudnnBackendDescriptor_t device) const;
  // Which engine it is and how it is set: "6(24=26)".
  static std::string name_of(const cudnn::Descriptor& engine);

 private:
  using Tensor = cudnnBackendDescriptor_t;  // of tensors_

  void add_forward();
  void add_backward();

  struct Layout {
    int64_t dims[4], strides[4];
  };
  // (batch, heads, rows, head_size) as rows lie in memory; transposed: with its last two dimensions swapped.
  Layout rows_of(const FusedAttention::Rows& rows, int64_t count, bool transposed = false) const;
  Layout dense(int64_t rows, int64_t cols) const;            // (batch, heads, rows, cols)
  Layout dense_transpose(int64_t rows, int64_t cols) const;  // (batch, heads, cols, rows) of such a one
  Layout scores() const { return dense(shape_.queries, shape_.keys); }
  Layout column() const { return dense(shape_.queries, 1); }

  Tensor tensor(Id id, cudnnDataType_t type, const Layout& layout);
  Tensor scalar(Id id);  // once a graph
  Tensor between(cudnnDataType_t type, const Layout& layout);  // of no memory

  struct Pointwise {
    Tensor b = nullptr, t = nullptr;
    int64_t axis = -1;
  };
  void pointwise(cudnnPointwiseMode_t mode, Tensor x, const Pointwise& others, Tensor y,
                 cudnnDataType_t math = CUDNN_DATA_FLOAT);
  void multiply(Tensor a, Tensor b, Tensor c);
  void reduce(cudnnReduceTensorOp_t op, Tensor x, Tensor y);
  void reshape(Tensor x, Tensor y);

  Tensor map(cudnnPointwiseMode_t mode, Tensor x, Tensor b, const Layout& layout);  // f32
  Tensor masked(Tensor x);  // the least where query i is not to see key j
  Tensor scaled_scores(Tensor q, Tensor k_transposed, Tensor factor);

  cudnn::Descriptor& add_operation(cudnnBackendDescriptorType_t type, const char* name);
  Tensor add_tensor(int64_t id, cudnnDataType_t type, const Layout& layout, bool is_virtual, bool by_value);

  FusedAttention shape_;
  std::deque<cudnn::Descriptor> tensors_, details_, operations_;
  cudnn::Descriptor graph_;
};

}  // namespace troupe::kernels
