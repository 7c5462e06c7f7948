// Generation the plain way: every step recomputes the whole prefix with decoder_forward, without a cache, and
// beam search looks at every token of the vocabulary. What model/generate.hpp is compared with.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/generate.hpp"
#include "model/state.hpp"

namespace troupe::testing {

struct GenerationSetup {
  kernels::Backend& backend;
  std::unique_ptr<model::Model> model;
  std::unique_ptr<kernels::Stream> stream;
  model::TrainState state;
};
// Random weights, moved away from their initial values.
GenerationSetup make_setup(kernels::Backend& backend, const model::ModelConfig& config, uint64_t seed);

std::vector<std::vector<int32_t>> random_inputs(const model::ModelConfig& config,
                                                const std::vector<size_t>& lengths, uint64_t seed);

// Log probabilities of every token after `output`, by a full forward pass over one sentence.
std::vector<double> plain_next(GenerationSetup& setup, const std::vector<int32_t>& input,
                               const std::vector<int32_t>& output);

int64_t plain_limit(const GenerationSetup& setup, const std::vector<int32_t>& input,
                    const model::GenerateOptions& options);

// Arg max after arg max.
model::Hypothesis plain_greedy(GenerationSetup& setup, const std::vector<int32_t>& input,
                               const model::GenerateOptions& options);
// The definition of GenerateOptions, without early stopping.
std::vector<model::Hypothesis> plain_beam(GenerationSetup& setup, const std::vector<int32_t>& input,
                                          const model::GenerateOptions& options);

}  // namespace troupe::testing
