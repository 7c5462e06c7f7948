// The state x of training: everything that F(x, R) reads and writes. x(s+1) = F(x(s), R(s)); nothing else
// changes it. A move-only owner; one writer at a time, or several on disjoint ranges inside a commit
// (model/optimizer.hpp).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "model/loss_totals.hpp"
#include "model/model.hpp"

namespace troupe::model {

// Held-out evaluations as F sees them: integers only.
struct EvaluationState {
  int64_t last_step = -1;  // the step after which the newest evaluation was made, -1 before the first
  LossTotals last;
  int64_t best_step = -1;
  LossTotals best;             // lowest mean loss, compared exactly
  int64_t without_better = 0;  // evaluations since the best one

  void record(int64_t step, const LossTotals& totals);
  bool operator==(const EvaluationState&) const = default;
};

// Where a state lies: on the host (kernels::allocate_host, or a backend's allocate), or on a device.
using Allocate = std::function<kernels::Buffer(size_t bytes)>;

// Every packed weight of a model in one Buffer; entries of vectors and unpacked embeddings are empty.
struct PackedWeights {
  kernels::Buffer memory;
  std::vector<kernels::PackedWeight> views;  // indexed as ParameterTable::all()
};
// What training packs a matrix as: linear operations, which alone may be multiplied in fp8, and embeddings.
kernels::PackedType training_type(const ModelConfig& config, const Parameter& parameter);
// For training. Throws Error(device) when the device has no products of the model's kind.
PackedWeights allocate_packed(const Allocate& allocate, const kernels::Stream& stream, const Model& model);
// Packs every matrix of flat `weights` as `type`: the model's compute type, or i8.
PackedWeights pack_weights(kernels::Backend& backend, kernels::Stream& stream, const Model& model,
                           const float* weights, kernels::PackedType type);

// The three arrays, each indexed from the flat space's beginning; of a copy of one range, no other may be
// touched.
struct StateArrays {
  float* weights = nullptr;
  float* moment1 = nullptr;
  float* moment2 = nullptr;
};

struct TrainState {
  int64_t step = 0;     // steps committed, skipped ones included: the next step to compute
  int64_t updates = 0;  // of them, those that changed the weights: AdamW's t
  int64_t skipped = 0;
  int64_t target_tokens = 0;        // counted in losses so far
  std::array<uint8_t, 32> chain{};  // digest chain: SHA-256(chain before, what the step was); see finish_step
  EvaluationState evaluation;
  int64_t elements = 0;
  kernels::Buffer weights, moment1, moment2;  // `elements` f32 each, flat
  PackedWeights packed;                       // derived from weights: not in checkpoints, not in digests

  float* weight_data() const { return static_cast<float*>(weights.data()); }
  float* moment1_data() const { return static_cast<float*>(moment1.data()); }
  float* moment2_data() const { return static_cast<float*>(moment2.data()); }
  StateArrays arrays() const { return {weight_data(), moment1_data(), moment2_data()}; }
  WeightsView view() const { return {weight_data(), &packed.views}; }
  // All but the arrays.
  void copy_counters(const TrainState& from);
  // A copy without packed weights (a snapshot to write or send). REQUIRES that it lies on the host.
  TrainState clone(kernels::Backend& backend) const;
};

// Whether weights and moments of two states on the host are the same, byte by byte.
bool same_arrays(const TrainState& a, const TrainState& b);

// Arrays allocated, counters zero; weights and moments uninitialised, nothing packed.
TrainState allocate_state(const Allocate& allocate, int64_t elements);

// x(0): initial weights from `seed`, moments zero; in the host's memory, not packed.
TrainState first_state(const Allocate& allocate, const Model& model, uint64_t seed);
// The same, packed.
TrainState initial_state(kernels::Backend& backend, kernels::Stream& stream, const Model& model,
                         uint64_t seed);

// Packs parameter `index` from its f32 master; nothing to do for vectors and unpacked embeddings. Threads may
// share the parameters of a state.
void pack_parameter(kernels::Stream& stream, const ParameterTable& table, size_t index, TrainState& state);

// All of them, allocating what they need the first time (a loaded state is not packed).
void pack_state(kernels::Backend& backend, kernels::Stream& stream, const Model& model, TrainState& state);

// SHA-256, 64 hex digits, over names, shapes and weight bytes in the table's order and nothing else.
std::string weights_digest(const ParameterTable& table, const float* weights);

// SHA-256 of all that a checkpoint holds of the state: equal on two nodes exactly when they may go on
// together.
std::array<uint8_t, 32> state_digest(const TrainState& state);

}  // namespace troupe::model
