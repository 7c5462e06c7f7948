#include "model/initialise.hpp"

#include "kernels/base/det_math.hpp"
#include "kernels/base/hash.hpp"
#include "kernels/base/random.hpp"
#include "model/parameters.hpp"

namespace troupe::model {

namespace {

// Numbers of one parameter: a pure function of (seed, name).
Philox generator(uint64_t seed, const std::string& name) {
  return philox_from(mix64(seed, checksum64(name.data(), name.size())));
}

void fill_normal(const Philox& philox, double deviation, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += 2) {
    const auto bits = philox(uint64_t(i));
    const auto pair =
        det::normal_pair((uint64_t(bits[0]) << 32) | bits[1], (uint64_t(bits[2]) << 32) | bits[3]);
    out[i] = float(deviation * pair[0]);
    if (i + 1 < count) out[i + 1] = float(deviation * pair[1]);
  }
}

void fill_uniform(const Philox& philox, double bound, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += 4) {
    const auto bits = philox(uint64_t(i));
    for (int64_t j = i; j < i + 4 && j < count; ++j)
      out[j] = float(bound * ((double(bits[size_t(j - i)]) + 0.5) * 0x1p-31 - 1));
  }
}

bool ends_with(const std::string& name, const char* suffix) {
  return name.ends_with(suffix);
}

// Several projections may be fused into one matrix: each is initialised as if it stood alone.
double xavier_bound(const ModelConfig& config, const Parameter& p) {
  int64_t outputs = p.rows;
  if (ends_with(p.name, ".query_key_value.weight") || ends_with(p.name, ".key_value.weight"))
    outputs = config.width;
  return det::sqrt(6.0 / double(outputs + p.cols));
}

double gpt2_deviation(const ModelConfig& config, const Parameter& p) {
  const bool into_residual =
      p.kind == ParameterKind::matrix &&
      (ends_with(p.name, "attention.output.weight") || ends_with(p.name, ".outer.weight"));
  return into_residual ? 0.02 / det::sqrt(2.0 * double(config.decoder_layers)) : 0.02;
}

}  // namespace

void initialise_parameter(const ModelConfig& config, const Parameter& p, uint64_t seed, float* weights) {
  float* out = weights + p.offset;
  const int64_t count = p.rows * p.cols;
  const Philox philox = generator(seed, p.name);
  const bool gpt2 = config.family == Family::decoder;
  switch (p.kind) {
    case ParameterKind::norm:
    case ParameterKind::bias:
      std::fill_n(out, count, p.kind == ParameterKind::norm ? 1.0f : 0.0f);
      return;
    case ParameterKind::embedding:
      fill_normal(philox, gpt2 ? gpt2_deviation(config, p) : 1 / det::sqrt(double(config.width)), count, out);
      return;
    case ParameterKind::matrix:
      if (gpt2)
        fill_normal(philox, gpt2_deviation(config, p), count, out);
      else
        fill_uniform(philox, xavier_bound(config, p), count, out);
      return;
  }
}

void initialise(const Model& model, uint64_t seed, float* weights) {
  for (const Parameter& p : model.parameters().all()) initialise_parameter(model.config(), p, seed, weights);
}

}  // namespace troupe::model
