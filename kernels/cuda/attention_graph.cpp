#include "kernels/cuda/attention_graph.hpp"

#include <algorithm>
#include <array>

namespace troupe::kernels {

namespace {

constexpr int64_t kFirstUnnamed = 100;  // ids of tensors between operations
constexpr int64_t kReadMax = 32;        // of engines, and of their settings
constexpr int64_t kRowAxis = 2, kColAxis = 3;

// The descriptors of an attribute.
std::vector<cudnn::Descriptor> read_all(const cudnn::Descriptor& from, cudnnBackendAttributeName_t attribute,
                                        cudnnBackendDescriptorType_t type) {
  std::vector<cudnn::Descriptor> found;
  std::vector<cudnnBackendDescriptor_t> places;
  for (int64_t i = 0; i < kReadMax; ++i) places.push_back(found.emplace_back(type, "choice").get());
  found.erase(found.begin() + from.read(attribute, places), found.end());
  return found;
}

cudnn::Descriptor engine_of(const cudnn::Descriptor& configuration) {
  cudnn::Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR, "engine");
  cudnnBackendDescriptor_t place = engine.get();
  configuration.read(CUDNN_ATTR_ENGINECFG_ENGINE, std::span(&place, 1));
  return engine;
}

}  // namespace

AttentionGraph::AttentionGraph(const FusedAttention& attention, cudnnHandle_t handle)
    : shape_(attention), graph_(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, "operation graph") {
  if (attention.is_gradient)
    add_backward();
  else
    add_forward();
  std::vector<cudnnBackendDescriptor_t> operations;
  for (cudnn::Descriptor& operation : operations_) {
    operation.finalize();
    operations.push_back(operation.get());
  }
  if (handle != nullptr) graph_.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, handle);
  graph_.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, std::span<const cudnnBackendDescriptor_t>(operations));
  graph_.finalize();
}

// The exponentials are of what is above the greatest score of their row, so that none overflows.
void AttentionGraph::add_forward() {
  const Tensor queries = tensor(q, CUDNN_DATA_BFLOAT16, rows_of(shape_.q, shape_.queries)),
               keys_t = tensor(k, CUDNN_DATA_BFLOAT16, rows_of(shape_.k, shape_.keys, true));
  const Tensor scores_of = masked(scaled_scores(queries, keys_t, scalar(scale)));
  const Tensor greatest = between(CUDNN_DATA_FLOAT, column());
  reduce(CUDNN_REDUCE_TENSOR_MAX, scores_of, greatest);
  const Tensor above = map(CUDNN_POINTWISE_SUB, scores_of, greatest, scores());
  const Tensor exponentials = map(CUDNN_POINTWISE_EXP, above, nullptr, scores());
  const Tensor sum = between(CUDNN_DATA_FLOAT, column());
  reduce(CUDNN_REDUCE_TENSOR_ADD, exponentials, sum);
  const Tensor logarithm = map(CUDNN_POINTWISE_LOG, sum, nullptr, column());
  pointwise(CUDNN_POINTWISE_ADD, greatest, {.b = logarithm}, tensor(lse, CUDNN_DATA_FLOAT, column()));
  const Tensor weights = between(CUDNN_DATA_BFLOAT16, scores());
  pointwise(CUDNN_POINTWISE_DIV, exponentials, {.b = sum}, weights);
  multiply(weights, tensor(v, CUDNN_DATA_BFLOAT16, rows_of(shape_.v, shape_.keys)),
           tensor(out, CUDNN_DATA_BFLOAT16, rows_of(shape_.out, shape_.queries)));
}

// delta = sum(dout * out) a row; P = exp(scores - lse); dv = P^T dout; dS = P * (dout v^T - delta) / sqrt(D);
// dk = dS^T q; dq = dS k. dq is a product of its own, not a sum over blocks of keys as they come: so it has
// one order, and takes a dS of (batch, heads, queries, keys).
void AttentionGraph::add_backward() {
  const Tensor queries = tensor(q, CUDNN_DATA_BFLOAT16, rows_of(shape_.q, shape_.queries)),
               keys_t = tensor(k, CUDNN_DATA_BFLOAT16, rows_of(shape_.k, shape_.keys, true)),
               values_t = tensor(v, CUDNN_DATA_BFLOAT16, rows_of(shape_.v, shape_.keys, true)),
               results = tensor(out, CUDNN_DATA_BFLOAT16, rows_of(shape_.out, shape_.queries)),
               gradients = tensor(dout, CUDNN_DATA_BFLOAT16, rows_of(shape_.dout, shape_.queries));
  const Tensor products =
      map(CUDNN_POINTWISE_MUL, gradients, results, dense(shape_.queries, shape_.head_size));
  const Tensor sums = between(CUDNN_DATA_FLOAT, column());
  reduce(CUDNN_REDUCE_TENSOR_ADD, products, sums);
  const Tensor deltas = tensor(delta, CUDNN_DATA_FLOAT, column());
  pointwise(CUDNN_POINTWISE_MUL, sums, {.b = scalar(one)}, deltas);

  const Tensor factor = scalar(scale);
  const Tensor scores_of = scaled_scores(queries, keys_t, factor);
  const Tensor above = map(CUDNN_POINTWISE_SUB, scores_of, tensor(lse, CUDNN_DATA_FLOAT, column()), scores());
  const Tensor weights = map(CUDNN_POINTWISE_EXP, masked(above), nullptr, scores());
  const Tensor weights_t = between(CUDNN_DATA_BFLOAT16, dense_transpose(shape_.queries, shape_.keys));
  reshape(weights, weights_t);
  multiply(weights_t, gradients, tensor(dv, CUDNN_DATA_BFLOAT16, rows_of(shape_.dv, shape_.keys)));

  const Tensor to_weights = between(CUDNN_DATA_FLOAT, scores());
  multiply(gradients, values_t, to_weights);
  const Tensor centred = map(CUDNN_POINTWISE_SUB, to_weights, deltas, scores());
  const Tensor to_softmax = map(CUDNN_POINTWISE_MUL, centred, weights, scores());
  const Tensor to_scores = map(CUDNN_POINTWISE_MUL, to_softmax, factor, scores());
  const Tensor to_scores_t = between(CUDNN_DATA_BFLOAT16, dense_transpose(shape_.queries, shape_.keys));
  reshape(to_scores, to_scores_t);
  multiply(to_scores_t, queries, tensor(dk, CUDNN_DATA_BFLOAT16, rows_of(shape_.dk, shape_.keys)));
  const Tensor keys = between(CUDNN_DATA_FLOAT, rows_of(shape_.k, shape_.keys));
  reshape(keys_t, keys);
  multiply(to_scores, keys, tensor(dq, CUDNN_DATA_BFLOAT16, rows_of(shape_.dq, shape_.queries)));
}

AttentionGraph::Tensor AttentionGraph::scaled_scores(Tensor queries, Tensor keys_t, Tensor factor) {
  const Tensor products = between(CUDNN_DATA_FLOAT, scores());
  multiply(queries, keys_t, products);
  return map(CUDNN_POINTWISE_MUL, products, factor, scores());
}

AttentionGraph::Tensor AttentionGraph::masked(Tensor x) {
  if (!shape_.causal) return x;
  const Tensor row = between(CUDNN_DATA_INT32, scores()), col = between(CUDNN_DATA_INT32, scores()),
               sees = between(CUDNN_DATA_BOOLEAN, scores()), y = between(CUDNN_DATA_FLOAT, scores());
  pointwise(CUDNN_POINTWISE_GEN_INDEX, x, {.axis = kRowAxis}, row);
  pointwise(CUDNN_POINTWISE_GEN_INDEX, x, {.axis = kColAxis}, col);
  pointwise(CUDNN_POINTWISE_CMP_GE, row, {.b = col}, sees, CUDNN_DATA_BOOLEAN);
  pointwise(CUDNN_POINTWISE_BINARY_SELECT, x, {.b = scalar(least), .t = sees}, y);
  return y;
}

AttentionGraph::Layout AttentionGraph::rows_of(const FusedAttention::Rows& rows, int64_t count,
                                               bool transposed) const {
  const int64_t size = shape_.head_size, from_sequence = count * rows.stride;
  if (transposed) return {{shape_.batch, shape_.heads, size, count}, {from_sequence, size, 1, rows.stride}};
  return {{shape_.batch, shape_.heads, count, size}, {from_sequence, size, rows.stride, 1}};
}

AttentionGraph::Layout AttentionGraph::dense(int64_t rows, int64_t cols) const {
  return {{shape_.batch, shape_.heads, rows, cols}, {shape_.heads * rows * cols, rows * cols, cols, 1}};
}

AttentionGraph::Layout AttentionGraph::dense_transpose(int64_t rows, int64_t cols) const {
  return {{shape_.batch, shape_.heads, cols, rows}, {shape_.heads * rows * cols, rows * cols, 1, cols}};
}

AttentionGraph::Tensor AttentionGraph::add_tensor(int64_t id, cudnnDataType_t type, const Layout& layout,
                                                  bool is_virtual, bool by_value) {
  cudnn::Descriptor& made = tensors_.emplace_back(CUDNN_BACKEND_TENSOR_DESCRIPTOR, "tensor");
  made.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
  made.set(CUDNN_ATTR_TENSOR_DATA_TYPE, type);
  made.set(CUDNN_ATTR_TENSOR_DIMENSIONS, std::span<const int64_t>(layout.dims));
  made.set(CUDNN_ATTR_TENSOR_STRIDES, std::span<const int64_t>(layout.strides));
  made.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, int64_t{16});
  made.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, is_virtual);
  made.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, by_value);
  made.finalize();
  return made.get();
}

AttentionGraph::Tensor AttentionGraph::tensor(Id id, cudnnDataType_t type, const Layout& layout) {
  return add_tensor(id, type, layout, false, false);
}
AttentionGraph::Tensor AttentionGraph::scalar(Id id) {
  return add_tensor(id, CUDNN_DATA_FLOAT, {{1, 1, 1, 1}, {1, 1, 1, 1}}, false, true);
}
AttentionGraph::Tensor AttentionGraph::between(cudnnDataType_t type, const Layout& layout) {
  return add_tensor(kFirstUnnamed + int64_t(tensors_.size()), type, layout, true, false);
}

cudnn::Descriptor& AttentionGraph::add_operation(cudnnBackendDescriptorType_t type, const char* name) {
  return operations_.emplace_back(type, name);
}

void AttentionGraph::pointwise(cudnnPointwiseMode_t mode, Tensor x, const Pointwise& others, Tensor y,
                               cudnnDataType_t math) {
  cudnn::Descriptor& detail = details_.emplace_back(CUDNN_BACKEND_POINTWISE_DESCRIPTOR, "pointwise");
  detail.set(CUDNN_ATTR_POINTWISE_MODE, mode);
  detail.set(CUDNN_ATTR_POINTWISE_MATH_PREC, math);
  if (others.axis >= 0) detail.set(CUDNN_ATTR_POINTWISE_AXIS, others.axis);
  detail.finalize();
  cudnn::Descriptor& made =
      add_operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, "pointwise operation");
  made.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, detail.get());
  made.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
  if (others.b != nullptr) made.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, others.b);
  if (others.t != nullptr) made.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, others.t);
  made.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
}

AttentionGraph::Tensor AttentionGraph::map(cudnnPointwiseMode_t mode, Tensor x, Tensor b,
                                           const Layout& layout) {
  const Tensor y = between(CUDNN_DATA_FLOAT, layout);
  pointwise(mode, x, {.b = b}, y);
  return y;
}

void AttentionGraph::multiply(Tensor a, Tensor b, Tensor c) {
  cudnn::Descriptor& detail = details_.emplace_back(CUDNN_BACKEND_MATMUL_DESCRIPTOR, "product");
  detail.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
  detail.finalize();
  cudnn::Descriptor& made = add_operation(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, "product operation");
  made.set(CUDNN_ATTR_OPERATION_MATMUL_DESC, detail.get());
  made.set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
  made.set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
  made.set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
}

void AttentionGraph::reduce(cudnnReduceTensorOp_t op, Tensor x, Tensor y) {
  cudnn::Descriptor& detail = details_.emplace_back(CUDNN_BACKEND_REDUCTION_DESCRIPTOR, "reduction");
  detail.set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
  detail.set(CUDNN_ATTR_REDUCTION_OPERATOR, op);
  detail.finalize();
  cudnn::Descriptor& made =
      add_operation(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, "reduction operation");
  made.set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, detail.get());
  made.set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
  made.set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
}

void AttentionGraph::reshape(Tensor x, Tensor y) {
  cudnn::Descriptor& made = add_operation(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, "reshape operation");
  made.set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
  made.set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
}

std::vector<cudnn::Descriptor> AttentionGraph::engines(cudnnBackendDescriptor_t device) const {
  cudnn::Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, "choice of engines");
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph_.get());
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_HEUR_MODE_A);
  if (device != nullptr) heuristics.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device);
  if (!heuristics.finalize_if_supported()) return {};

  auto found = read_all(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  std::erase_if(found, [](const cudnn::Descriptor& configuration) {
    const auto notes = engine_of(configuration)
                           .values<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                                                CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
    return std::ranges::count(notes, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) > 0;
  });
  return found;
}

std::string AttentionGraph::name_of(const cudnn::Descriptor& configuration) {
  std::string knobs;
  for (const auto& knob :
       read_all(configuration, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR))
    knobs += fmt::format("{}{}={}", knobs.empty() ? "" : ",",
                         int(knob.values<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, 1).at(0)),
                         knob.values<int64_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, 1).at(0));
  return fmt::format(
      "{}({})", engine_of(configuration).values<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 1).at(0), knobs);
}

}  // namespace troupe::kernels
