// Random initial weights as a pure function of (seed, parameter name, shape): adding or reordering parameters
// changes no other. Encoder-decoder: Xavier-uniform matrices (Glorot & Bengio 2010), embeddings N(0,
// 1/width). Decoder-only: N(0, 0.02) throughout, output projections of sublayers divided by sqrt(2 layers)
// (Radford et al. 2019).
#pragma once

#include <cstdint>

#include "model/model.hpp"

namespace troupe::model {

// Writes parameter `index` at its place in the flat array `weights`. Any thread; no libm.
void initialise_parameter(const ModelConfig& config, const Parameter& parameter, uint64_t seed,
                          float* weights);

// All of them.
void initialise(const Model& model, uint64_t seed, float* weights);

}  // namespace troupe::model
