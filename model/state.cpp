#include "model/state.hpp"

#include <cstring>

#include "kernels/base/hash.hpp"
#include "model/initialise.hpp"

namespace troupe::model {

using kernels::Buffer;

void EvaluationState::record(int64_t step, const LossTotals& totals) {
  last_step = step;
  last = totals;
  // Mean losses compared without dividing.
  __extension__ typedef __int128 Wide;
  const bool better =
      best_step < 0 || Wide(totals.nll_units) * best.tokens < Wide(best.nll_units) * totals.tokens;
  if (better) {
    best_step = step;
    best = totals;
    without_better = 0;
  } else {
    ++without_better;
  }
}

namespace {

Allocate allocate_on(kernels::Backend& backend) {
  return [&backend](size_t bytes) { return backend.allocate(bytes); };
}

}  // namespace

TrainState allocate_state(const Allocate& allocate, int64_t elements) {
  TrainState state;
  const size_t bytes = size_t(elements) * sizeof(float);
  state.elements = elements;
  state.weights = allocate(bytes);
  state.moment1 = allocate(bytes);
  state.moment2 = allocate(bytes);
  return state;
}

void TrainState::copy_counters(const TrainState& from) {
  step = from.step;
  updates = from.updates;
  skipped = from.skipped;
  target_tokens = from.target_tokens;
  chain = from.chain;
  evaluation = from.evaluation;
}

bool same_arrays(const TrainState& a, const TrainState& b) {
  const size_t bytes = size_t(a.elements) * sizeof(float);
  return a.elements == b.elements && std::memcmp(a.weight_data(), b.weight_data(), bytes) == 0 &&
         std::memcmp(a.moment1_data(), b.moment1_data(), bytes) == 0 &&
         std::memcmp(a.moment2_data(), b.moment2_data(), bytes) == 0;
}

TrainState TrainState::clone(kernels::Backend& backend) const {
  TrainState copy = allocate_state(allocate_on(backend), elements);
  copy.copy_counters(*this);
  const size_t bytes = size_t(elements) * sizeof(float);
  std::memcpy(copy.weights.data(), weights.data(), bytes);
  std::memcpy(copy.moment1.data(), moment1.data(), bytes);
  std::memcpy(copy.moment2.data(), moment2.data(), bytes);
  return copy;
}

kernels::PackedType training_type(const ModelConfig& config, const Parameter& parameter) {
  const bool in_fp8 = config.products == Products::fp8 && parameter.kind == ParameterKind::matrix;
  return {config.compute, in_fp8 ? kernels::Packing::fp8 : kernels::Packing::training};
}

namespace {

template <typename TypeOf>
PackedWeights allocate_as(const Allocate& allocate, const kernels::Stream& stream, const Model& model,
                          TypeOf&& type_of) {
  const auto& all = model.parameters().all();
  size_t total = 0;
  for (const Parameter& p : all)
    if (p.packed) total += stream.packed_bytes(p.rows, p.cols, type_of(p));
  PackedWeights packed;
  packed.memory = allocate(total);
  packed.views.resize(all.size());
  size_t used = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!all[i].packed) continue;
    const kernels::PackedType type = type_of(all[i]);
    packed.views[i] = {static_cast<char*>(packed.memory.data()) + used, all[i].rows, all[i].cols, type.dtype,
                       type.packing};
    used += stream.packed_bytes(all[i].rows, all[i].cols, type);
  }
  return packed;
}

}  // namespace

PackedWeights allocate_packed(const Allocate& allocate, const kernels::Stream& stream, const Model& model) {
  return allocate_as(allocate, stream, model,
                     [&](const Parameter& p) { return training_type(model.config(), p); });
}

PackedWeights pack_weights(kernels::Backend& backend, kernels::Stream& stream, const Model& model,
                           const float* weights, kernels::PackedType type) {
  PackedWeights packed =
      allocate_as(allocate_on(backend), stream, model, [&](const Parameter&) { return type; });
  const auto& all = model.parameters().all();
  for (size_t i = 0; i < all.size(); ++i) {
    if (!all[i].packed) continue;
    kernels::PackedWeight& view = packed.views[i];
    view = stream.pack(kernels::view_of(weights + all[i].offset, all[i].rows, all[i].cols), type,
                       const_cast<void*>(view.data));
  }
  return packed;
}

void pack_parameter(kernels::Stream& stream, const ParameterTable& table, size_t index, TrainState& state) {
  const Parameter& p = table.all()[index];
  if (!p.packed) return;
  kernels::PackedWeight& view = state.packed.views[index];
  view = stream.pack(kernels::view_of(state.weight_data() + p.offset, p.rows, p.cols),
                     {view.dtype, view.packing}, const_cast<void*>(view.data));
}

void pack_state(kernels::Backend& backend, kernels::Stream& stream, const Model& model, TrainState& state) {
  if (state.packed.views.empty()) state.packed = allocate_packed(allocate_on(backend), stream, model);
  for (size_t i = 0; i < model.parameters().all().size(); ++i)
    pack_parameter(stream, model.parameters(), i, state);
}

TrainState first_state(const Allocate& allocate, const Model& model, uint64_t seed) {
  TrainState state = allocate_state(allocate, model.parameters().elements());
  initialise(model, seed, state.weight_data());
  std::memset(state.moment1.data(), 0, size_t(state.elements) * sizeof(float));
  std::memset(state.moment2.data(), 0, size_t(state.elements) * sizeof(float));
  return state;
}

TrainState initial_state(kernels::Backend& backend, kernels::Stream& stream, const Model& model,
                         uint64_t seed) {
  TrainState state = first_state(allocate_on(backend), model, seed);
  pack_state(backend, stream, model, state);
  return state;
}

std::string weights_digest(const ParameterTable& table, const float* weights) {
  Sha256 sha;
  for (const Parameter& p : table.all()) {
    const int64_t shape[2] = {p.rows, p.cols};
    const uint64_t name_bytes = p.name.size();
    sha.update(&name_bytes, sizeof name_bytes).update(p.name).update(shape, sizeof shape);
    sha.update(weights + p.offset, size_t(p.rows * p.cols) * sizeof(float));
  }
  return sha.hex();
}

std::array<uint8_t, 32> state_digest(const TrainState& state) {
  const EvaluationState& e = state.evaluation;
  const int64_t counters[] = {state.step,       state.updates,  state.skipped,     state.target_tokens,
                              state.elements,   e.last_step,    e.last.loss_units, e.last.nll_units,
                              e.last.tokens,    e.last.correct, e.best_step,       e.best.loss_units,
                              e.best.nll_units, e.best.tokens,  e.best.correct,    e.without_better};
  const size_t bytes = size_t(state.elements) * sizeof(float);
  Sha256 sha;
  sha.update(counters, sizeof counters).update(state.chain.data(), state.chain.size());
  sha.update(state.weights.data(), bytes)
      .update(state.moment1.data(), bytes)
      .update(state.moment2.data(), bytes);
  return sha.digest();
}

}  // namespace troupe::model
