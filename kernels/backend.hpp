// The one interface to numeric operations. A Backend is a device: it allocates Buffers and makes Streams; it is
// thread-safe. A Stream executes operations in the order they are called; it belongs to one thread at a time (on a
// CPU: one slot runs on one thread and one stream from end to end; on a GPU a stream is a CUDA stream and calls are
// asynchronous until synchronize()). kernels/cpu/ and kernels/cuda/ implement it in files of the same names.
//
// Conventions. M rows are tokens, C channels, F the inner width, V the vocabulary. A "compute type" is f32 or bf16 as
// the stream's caller chooses by the dtype of the views; parameters, statistics and gradients of parameters are f32;
// bf16 products accumulate in f32. Outputs are overwritten unless a comment says "accumulated". Views must not overlap
// unless a comment allows it. A breach of these is a CheckFailure; a failing device is an Error(device).
// Every result is a pure function of the arguments and the instruction-set level: no clock, no thread count, no libm.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/exact_sum.hpp"
#include "kernels/tensor.hpp"

namespace troupe::kernels {

// What a weight is packed for: every product of a training step, or linear_forward alone. On a CPU a row of y is then
// the same bits whatever the other rows are; other devices pack as for training. fp8: as for training in bf16, but
// linear_forward and linear_backward_input multiply in 8 bits (Micikevicius et al. 2022): weights and x in E4M3, dy in
// E5M2, each tensor with one scale from its own largest magnitude; sums are f32. GPUs of compute capability 8.9 and
// later; a shape that cannot be multiplied so is multiplied in bf16.
enum class Packing : uint8_t { training = 1, inference, fp8 };
struct PackedType {
  DType dtype = DType::f32;  // the compute type, or i8: for inference alone, each row of W rounded to 8 bits of its own scale
  Packing packing = Packing::training;
  PackedType(DType type) : dtype(type), packing(type == DType::i8 ? Packing::inference : Packing::training) {}
  PackedType(DType type, Packing use) : dtype(type), packing(use) {}
};

// A weight matrix W (N, K) in whatever form the backend's products like best, made from the f32 master once a step by
// Stream::pack and shared read-only by all threads. Opaque; lives inside memory that the caller owns.
struct PackedWeight {
  const void* data = nullptr;
  int64_t n = 0;  // output channels
  int64_t k = 0;  // input channels
  DType dtype = DType::f32;
  Packing packing = Packing::training;
};

// Dropout as a pure function of (key, row * cols + col): element kept with probability 1 - rate and scaled by
// 1 / (1 - rate). rate 0 is the identity. The key names (seed, step, slot, layer, site).
struct Dropout {
  float rate = 0;
  uint64_t key = 0;
};

enum class Activation : uint8_t { relu = 1, gelu };  // gelu is the tanh form of GPT-2

// The activation between two linear operations.
struct FusedActivation {
  Activation kind = Activation::relu;
  Dropout dropout;
  View pre;  // compute type: what it is given, written in the forward pass and read in the backward pass
};

struct AttentionShape {
  int64_t batch = 0;       // B
  int64_t queries = 0;     // Tq: rows of q are (B * Tq)
  int64_t keys = 0;        // Tk: rows of k and v are (B * Tk)
  int64_t heads = 0;       // H; columns of q, k, v are (H * D)
  int64_t head_size = 0;   // D
  bool causal = false;     // query i sees keys <= i + Tk - Tq
  const int32_t* key_lengths = nullptr;  // (B) or null: keys at and beyond this are padding
  bool keys_by_head = false;  // forward only: k and v are (B * H * Tk, D), a head's rows behind one another
  Dropout dropout;         // on the attention weights; counter ((b * H + h) * Tq + i) * Tk + j
};

// layer (Ba et al. 2016): normed = gamma * (r - mean) * rstd + beta, with rstd = 1 / sqrt(variance + epsilon).
// rms (Zhang & Sennrich 2019): normed = gamma * r * rstd, with rstd = 1 / sqrt(mean of r * r + epsilon): no mean, no beta.
enum class NormKind : uint8_t { layer = 1, rms };

// r = x + dropout(y), then its norm. Pre-norm keeps r as the residual stream, post-norm keeps `normed_f32`. All views
// have M rows and C columns except where noted.
struct ResidualNorm {
  ConstView x;           // f32
  ConstView y;           // compute type, or empty: r = x
  Dropout dropout;       // on y
  ConstView gamma, beta; // (1, C) f32; both empty: no norm is computed, only r. rms: beta is empty
  View sum;              // f32 r; may be x itself; may be empty when y is empty
  View normed;           // compute type; may be empty
  View normed_f32;       // f32; may be empty
  View mean, rstd;       // (1, M) f32, kept for the backward pass. rms: mean is empty
  NormKind kind = NormKind::layer;
};
struct ResidualNormGrad {
  ConstView dnormed;      // compute type; may be empty
  ConstView dnormed_f32;  // f32, added to dnormed; may be empty
  ConstView dsum_in;      // f32 gradient that reaches r past the norm; may be empty
  ConstView sum;          // f32 r, as saved
  ConstView gamma;        // as in the forward pass; empty: no norm
  ConstView mean, rstd;   // as the forward pass kept them
  Dropout dropout;
  View dsum;              // f32 gradient of r, which is that of x; may be dsum_in itself
  View dy;                // compute type, gradient of y; empty when y was
  View dgamma, dbeta;     // (1, C) f32. rms: dbeta is empty
  NormKind kind = NormKind::layer;
};

// Where a slot's parameter gradients go. Called by operations and layers as soon as a gradient is whole, while it is
// hot in cache. `offset` is the first element in the flat parameter space and starts a block; the gradient is
// contiguous f32 on the stream's device, and is consumed before the call returns (on a GPU: before the next
// operation on the stream). Implementations say from which threads they may be called.
class GradientSink {
 public:
  virtual ~GradientSink() = default;
  virtual void fold(int64_t offset, ConstView gradient) = 0;
  // Rows of one table at once: row i of `gradient` belongs at offset + rows[i] * gradient.cols, each row at most once.
  virtual void fold_rows(int64_t offset, std::span<const int32_t> rows, ConstView gradient) {
    for (int64_t i = 0; i < gradient.rows; ++i)
      fold(offset + rows[size_t(i)] * gradient.cols, gradient.row_range(i, 1));
  }
  // A hint: all that lies at `offset` or beyond has been folded. Later calls name lower offsets.
  virtual void whole_from(int64_t /*offset*/) {}
};

// Softmax cross-entropy with label smoothing over logits = x W^T, computed block by block of the vocabulary:
// the (M, V) logits are never kept. Smoothing e as in Szegedy et al. 2016: q = (1-e) onehot + e/V.
struct CrossEntropy {
  ConstView x;                  // (M, C) compute type
  PackedWeight weight;          // (V, C)
  const int32_t* targets = nullptr;  // (M); negative: not counted, its dx is zero
  float smoothing = 0;
  View dx;                      // (M, C) compute type: gradient of the summed loss; empty: forward only
  GradientSink* sink = nullptr; // receives dW (V, C) in blocks of rows at weight_offset; null: forward only
  int64_t weight_offset = 0;
};
struct LossSums {
  double loss = 0;              // sum over counted targets of the smoothed loss, natural log
  double nll = 0;               // the same without smoothing
  int64_t tokens = 0;
  int64_t correct = 0;          // arg max is the target
};

struct AdamW {
  float learning_rate = 0, beta1 = 0.9f, beta2 = 0.98f, epsilon = 1e-9f, weight_decay = 0;
  float bias_correction1 = 1, bias_correction2 = 1;  // 1 - beta^t, computed without libm
  float gradient_scale = 1;  // 1 / tokens, times the clipping factor
};

class Stream {
 public:
  virtual ~Stream() = default;
  virtual Device device() const = 0;
  virtual void synchronize() = 0;

  // --- linear.cpp: y = x W^T + bias (Vaswani et al. 2017 call it projection) ---
  // Bytes that a packed (n, k) weight takes, a multiple of 64. Throws Error(device) for fp8 where the device has no such
  // products.
  virtual size_t packed_bytes(int64_t n, int64_t k, PackedType type) const = 0;
  virtual PackedWeight pack(ConstView master /* (N, K) f32 */, PackedType type, void* destination) = 0;
  // x (M, K), bias (1, N) f32 or empty, y (M, N) compute type or f32. A weight of i8 (CPU only) takes x of either
  // compute type and rounds each of its rows to 8 bits as well; the products are added up exactly, so a row of y is the
  // same bits at every instruction-set level.
  virtual void linear_forward(ConstView x, PackedWeight weight, ConstView bias, View y) = 0;
  // dx (M, K) compute type or f32 = dy W; `accumulate` adds to dx.
  virtual void linear_backward_input(ConstView dy, PackedWeight weight, View dx, bool accumulate) = 0;
  // dw (N, K) f32 = dy^T x; dbias (1, N) f32 = column sums of dy, or empty.
  virtual void linear_backward_weight(ConstView dy, ConstView x, View dw, View dbias) = 0;
  // pre = x W^T + bias, y (M, N) compute type = dropout(activation(pre)): the two operations, or one, in which the
  // activation takes its input before that is rounded to bf16.
  virtual void linear_activation_forward(ConstView x, PackedWeight weight, ConstView bias,
                                         const FusedActivation& activation, View y) {
    linear_forward(x, weight, bias, activation.pre);
    activation_forward(activation.kind, activation.pre, activation.dropout, y);
  }
  // The other way round, W being of the linear operation that reads the activation's result: dpre (M, K) compute type =
  // dy W times dropout's factor and the activation's slope at pre (M, K).
  virtual void linear_activation_backward_input(ConstView dy, PackedWeight weight, const FusedActivation& activation,
                                                View dpre) {
    linear_backward_input(dy, weight, dpre, false);
    activation_backward(activation.kind, activation.pre, activation.dropout, dpre, dpre);
  }

  // --- attention.cpp: softmax(q k^T / sqrt(D)) v, blocked over keys (Dao et al. 2022): no (B, H, Tq, Tk) is kept ---
  // q (B*Tq, H*D), k and v (B*Tk, H*D) may be column ranges of one matrix (or see keys_by_head); out (B*Tq, H*D); lse (B*H, Tq) f32 is kept
  // for the backward pass (may be empty for inference). A query that sees no key gets zeros. Weights may be rounded to bf16 where q is bf16.
  virtual void attention_forward(const AttentionShape& shape, ConstView q, ConstView k, ConstView v, View out,
                                 View lse) = 0;
  virtual void attention_backward(const AttentionShape& shape, ConstView q, ConstView k, ConstView v, ConstView out,
                                  ConstView lse, ConstView dout, View dq, View dk, View dv) = 0;

  // --- norm.cpp: residual, dropout and a norm in one pass; epsilon 1e-5 ---
  virtual void residual_norm_forward(const ResidualNorm& args) = 0;
  virtual void residual_norm_backward(const ResidualNormGrad& args) = 0;

  // --- rotary.cpp: rotary position embeddings (Su et al. 2021) ---
  // Turns x (M, H*D) of compute type in place: in each head the pairs (i, i + D/2), the half split of GPT-NeoX, by the
  // angles of row m % T of `turns` (T, D) f32, which is D/2 cosines and then D/2 sines. `inverse`: by the negative angles,
  // which makes the gradient of what was turned that of what was not. Rows are turned each by itself.
  virtual void rotate(View x, ConstView turns, bool inverse) = 0;

  // --- activation.cpp ---
  virtual void activation_forward(Activation kind, ConstView x, Dropout dropout, View y) = 0;
  // dx may be dy itself. x is the input of the forward pass.
  virtual void activation_backward(Activation kind, ConstView x, Dropout dropout, ConstView dy, View dx) = 0;

  // --- embedding.cpp ---
  // out (M, C) f32 = dropout(table[ids[m]] * scale + positions[m % T]); table (V, C) f32; positions (T, C) f32.
  virtual void embedding_forward(std::span<const int32_t> ids, ConstView table, ConstView positions, float scale,
                                 Dropout dropout, View out) = 0;
  // Sums dout (M, C) f32 over equal ids in order of position and folds each row at offset + id * C. `dpositions`
  // (T, C) f32 is overwritten with the gradient of the positions, or empty. Rows with pad_id are not folded.
  virtual void embedding_backward(std::span<const int32_t> ids, int32_t pad_id, float scale, Dropout dropout,
                                  ConstView dout, GradientSink& sink, int64_t offset, View dpositions) = 0;

  // --- cross_entropy.cpp ---
  virtual LossSums cross_entropy(const CrossEntropy& args) = 0;

  // --- optimizer.cpp: pure functions of a range of blocks, so that threads share the work ---
  // Sum of squares of the gradients of blocks [begin, end), one f64 a block; sums[0] is that of block `begin`.
  virtual void block_square_sums(const BlockLayout& layout, const RoundedTotal& total, int64_t begin, int64_t end,
                                 double* sums) = 0;
  // AdamW (Loshchilov & Hutter 2019) fused with dequantisation on the elements of blocks [begin, end) of the flat f32
  // arrays: reads total, updates weight, moment1, moment2 in place.
  virtual void adamw(const AdamW& args, const BlockLayout& layout, const RoundedTotal& total, int64_t begin,
                     int64_t end, float* weight, float* moment1, float* moment2) = 0;

  // --- inference.cpp ---
  // For each row of logits (M, V) f32: the k largest log-softmax values, largest first (ties: lower id first), and
  // their ids; outputs (M, k).
  virtual void log_softmax_topk(ConstView logits, int64_t k, View values /* f32 */, View ids /* i32 */) = 0;

  // --- convert.cpp ---
  virtual void convert(ConstView from, View to) = 0;   // f32 <-> bf16 (round to nearest even) or copy
  virtual void add(ConstView x, View y) = 0;           // y += x, f32
  virtual void fill_zero(View y) = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual Device device() const = 0;
  virtual std::string description() const = 0;          // "CPU, x86-64-v4 bf16, oneDNN 2.6.3"
  virtual Buffer allocate(size_t bytes) = 0;            // throws Error(out_of_memory)
  virtual std::unique_ptr<Stream> create_stream() = 0;  // call it on the thread that will use it
  virtual void copy_to_host(ConstView from, void* host) = 0;
  virtual void copy_from_host(const void* host, View to) = 0;
};

}  // namespace troupe::kernels
