#include "tests/model/generate_support.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/base/random.hpp"
#include "model/checkpoint.hpp"
#include "model/stacks.hpp"
#include "tests/model/support.hpp"

namespace troupe::testing {

using model::Hypothesis;

GenerationSetup make_setup(kernels::Backend& backend, const model::ModelConfig& config, uint64_t seed) {
  auto shape = model::make_model(config);
  auto stream = backend.create_stream();
  auto state = model::initial_state(backend, *stream, *shape, seed);
  perturb(state, seed, 0.3f);
  model::pack_state(backend, *stream, *shape, state);
  return {backend, std::move(shape), std::move(stream), std::move(state)};
}

std::vector<std::vector<int32_t>> random_inputs(const model::ModelConfig& config,
                                                const std::vector<size_t>& lengths, uint64_t seed) {
  const Philox philox = philox_from(seed);
  std::vector<std::vector<int32_t>> inputs(lengths.size());
  for (size_t i = 0; i < lengths.size(); ++i)
    for (size_t t = 0; t < lengths[i]; ++t)
      inputs[i].push_back(int32_t(4 + philox(i, t)[0] % uint32_t(config.vocabulary - 4)));
  return inputs;
}

std::vector<double> plain_next(GenerationSetup& setup, const std::vector<int32_t>& input,
                               const std::vector<int32_t>& output) {
  const model::ModelConfig& config = setup.model->config();
  const bool translates = config.family == model::Family::encoder_decoder;
  TokenMatrix source, target;
  target.ids.push_back(config.bos_id);
  if (translates) {
    source.ids = input;
    source.ids.push_back(config.eos_id);
    source.rows = 1;
    source.lengths = {source.cols = int32_t(source.ids.size())};
  } else {
    target.ids.insert(target.ids.end(), input.begin(), input.end());
  }
  target.ids.insert(target.ids.end(), output.begin(), output.end());
  target.rows = 1;
  target.lengths = {target.cols = int32_t(target.ids.size())};

  const int64_t longest = std::max(source.cols, target.cols);
  kernels::Arena arena(setup.backend.allocate(setup.model->arena_bytes(1, longest, false) + (1 << 20)));
  const model::WeightsView weights = setup.state.view();
  model::Pass pass{*setup.stream, arena, config, setup.model->parameters(), weights, {}, nullptr};
  model::EncoderSaved encoder;
  model::DecoderSaved decoder;
  model::Memory memory;
  if (translates) memory = encoder_forward(pass, *setup.model, source, encoder);
  const auto states = decoder_forward(pass, *setup.model, target, translates ? &memory : nullptr, decoder);
  const auto logits = pass.take_f32(target.cols, config.vocabulary);
  setup.stream->linear_forward(states, pass.packed(setup.model->indices().output), {}, logits);
  const float* last = logits.as<float>() + (target.cols - 1) * logits.stride;
  double sum = 0;
  for (int64_t v = 0; v < config.vocabulary; ++v) sum += std::exp(double(last[v]));
  std::vector<double> result;
  for (int64_t v = 0; v < config.vocabulary; ++v) result.push_back(double(last[v]) - std::log(sum));
  return result;
}

int64_t plain_limit(const GenerationSetup& setup, const std::vector<int32_t>& input,
                    const model::GenerateOptions& options) {
  const model::ModelConfig& config = setup.model->config();
  const bool translates = config.family == model::Family::encoder_decoder;
  int64_t limit = config.max_length - (translates ? 0 : int64_t(input.size()));
  if (options.tokens_max > 0) limit = std::min(limit, options.tokens_max);
  if (translates && options.tokens_per_source > 0)
    limit = std::min(limit, int64_t(16 + options.tokens_per_source * double(input.size())));
  return limit;
}

namespace {
double plain_score(double log_probability, double alpha, size_t tokens) {
  return log_probability / std::pow((5.0 + double(tokens)) / 6.0, alpha);
}
}  // namespace

Hypothesis plain_greedy(GenerationSetup& setup, const std::vector<int32_t>& input,
                        const model::GenerateOptions& options) {
  Hypothesis result;
  size_t counted = 0;
  while (int64_t(counted) < plain_limit(setup, input, options) && !result.finished) {
    const auto next = plain_next(setup, input, result.tokens);
    const auto best = std::max_element(next.begin(), next.end());
    result.log_probability += *best;
    ++counted;
    if (best - next.begin() == setup.model->config().eos_id)
      result.finished = true;
    else
      result.tokens.push_back(int32_t(best - next.begin()));
  }
  result.score = plain_score(result.log_probability, options.length_penalty, counted);
  return result;
}

std::vector<Hypothesis> plain_beam(GenerationSetup& setup, const std::vector<int32_t>& input,
                                   const model::GenerateOptions& options) {
  const int32_t eos = setup.model->config().eos_id;
  const int64_t limit = plain_limit(setup, input, options);
  std::vector<Hypothesis> live(1), finished;
  for (int64_t length = 1; length <= limit && int64_t(finished.size()) < options.beam; ++length) {
    std::vector<Hypothesis> candidates;  // with the new token, </s> included
    for (const Hypothesis& from : live) {
      const auto next = plain_next(setup, input, from.tokens);
      for (size_t v = 0; v < next.size(); ++v) {
        Hypothesis to = from;
        to.tokens.push_back(int32_t(v));
        to.log_probability += next[v];
        to.score = plain_score(to.log_probability, options.length_penalty, size_t(length));
        candidates.push_back(std::move(to));
      }
    }
    std::stable_sort(candidates.begin(), candidates.end(), [](const Hypothesis& a, const Hypothesis& b) {
      return a.log_probability > b.log_probability;
    });
    live.clear();
    for (size_t rank = 0; rank < candidates.size() && int64_t(live.size()) < options.beam; ++rank) {
      Hypothesis& candidate = candidates[rank];
      if (candidate.tokens.back() != eos) {
        live.push_back(candidate);
      } else if (int64_t(rank) < options.beam) {
        candidate.tokens.pop_back();
        candidate.finished = true;
        finished.push_back(candidate);
      }
    }
  }
  if (int64_t(finished.size()) < options.beam) finished.insert(finished.end(), live.begin(), live.end());
  std::stable_sort(finished.begin(), finished.end(),
                   [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
  finished.resize(std::min(finished.size(), size_t(options.n_best)));
  return finished;
}

}  // namespace troupe::testing
