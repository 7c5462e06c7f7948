// A Transformer as a function of its flat parameters: forward and backward of one slot. The object holds only
// shapes; weights are views into a state that the caller owns and share freely between threads. One slot runs
// on one thread: calls with different streams and arenas may run at once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/base/batch.hpp"
#include "model/config.hpp"

namespace troupe::model {

enum class ParameterKind : uint8_t { embedding = 1, matrix, bias, norm };

struct Parameter {
  std::string name;  // "encoder.0.self_attention.query_key_value.weight"
  ParameterKind kind = ParameterKind::matrix;
  int64_t rows = 0;  // (rows, cols): (N, K) of a projection, (V, C) of an embedding, (1, C) of a vector
  int64_t cols = 0;
  int64_t offset = 0;   // in the flat parameter space; starts a block
  bool decays = true;   // under weight decay: matrices and embeddings
  bool packed = false;  // used in products: has a PackedWeight
};

// All parameters in their fixed order, laid out flat. The order is that of the forward pass; gradients are
// folded from its end to its beginning.
class ParameterTable {
 public:
  // Returns the index. Matrices are packed; an embedding is when it is also the output projection.
  size_t add(std::string name, ParameterKind kind, int64_t rows, int64_t cols, bool packed = false);
  const std::vector<Parameter>& all() const { return parameters_; }
  size_t index(const std::string& name) const;  // CHECKs that it exists
  const kernels::BlockLayout& layout() const { return layout_; }
  int64_t elements() const { return layout_.elements(); }

 private:
  std::vector<Parameter> parameters_;
  kernels::BlockLayout layout_;
};

// Read-only weights as a slot sees them: f32 masters and their packed forms, indexed as
// ParameterTable::all().
struct WeightsView {
  const float* master = nullptr;                               // flat
  const std::vector<kernels::PackedWeight>* packed = nullptr;  // empty entries for vectors
  const float* sinusoids =
      nullptr;  // the model's table, where the stream's device cannot read the host's; else null
  // In place of `master`: where each lies; null for those that are there in their packed form alone.
  const std::vector<const float*>* apart = nullptr;

  const float* master_of(size_t index, const Parameter& parameter) const {
    if (apart == nullptr) return master + parameter.offset;
    TROUPE_CHECK((*apart)[index] != nullptr, "{} is there in its packed form alone", parameter.name);
    return (*apart)[index];
  }
};

// Names the random numbers of a slot; evaluation uses no dropout.
struct SlotKey {
  uint64_t seed = 0;
  int64_t step = 0;
  uint32_t slot = 0;
};

struct TransformerParameters;  // model/parameters.hpp
enum class Side : uint8_t { source, target };

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;
  virtual const ParameterTable& parameters() const = 0;
  virtual const TransformerParameters& indices() const = 0;  // of parameters(), by layer and role

  // (count, C) f32: what is added to the embeddings of positions begin .. begin + count - 1; empty with
  // rotary positions.
  virtual kernels::ConstView positions(const WeightsView& weights, Side side, int64_t begin,
                                       int64_t count) const = 0;
  // (count, D) f32: what Stream::rotate turns the queries and keys of these positions by; empty unless
  // positions are rotary.
  virtual kernels::ConstView turns(const WeightsView& weights, int64_t begin, int64_t count) const = 0;

  // Bytes an Arena needs for any batch of at most `rows` sentences with rows * length <= tokens on either
  // side.
  virtual size_t arena_bytes(int64_t rows, int64_t tokens, bool training) const = 0;

  // Forward and backward: gradient of the summed loss goes to `sink`, each parameter folded as soon as it is
  // whole (a tied embedding: once for each of its uses). An empty batch is the identity.
  virtual kernels::LossSums train_slot(kernels::Stream& stream, kernels::Arena& arena,
                                       const WeightsView& weights, const Batch& batch, const SlotKey& key,
                                       float label_smoothing, kernels::GradientSink& sink) const = 0;
  // Forward only, no dropout.
  virtual kernels::LossSums evaluate_slot(kernels::Stream& stream, kernels::Arena& arena,
                                          const WeightsView& weights, const Batch& batch,
                                          float label_smoothing) const = 0;
};

std::unique_ptr<Model> make_model(const ModelConfig& config);

}  // namespace troupe::model
