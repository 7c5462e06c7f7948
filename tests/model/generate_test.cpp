#include <algorithm>

#include <doctest/doctest.h>

#include "kernels/cpu/backend.hpp"
#include "model/beam_search.hpp"
#include "tests/model/generate_support.hpp"
#include "tests/model/support.hpp"

using namespace troupe;
using namespace troupe::testing;
using model::GenerateOptions;
using model::Generator;
using model::Hypothesis;

namespace {

std::vector<model::ModelConfig> tiny_models() {
  model::ModelConfig pre = tiny_config(), post = tiny_config();
  post.norm = model::NormPlacement::post;
  post.positions = model::Positions::learned;
  post.tied_embeddings = false;
  model::ModelConfig gpt2 = model::gpt2_config(2, 16, 2, 29, 32);
  gpt2.inner = 24;
  gpt2.dropout = 0;
  for (auto* config : {&pre, &post, &gpt2}) config->compute = kernels::DType::f32;
  model::ModelConfig rotary = pre, rotary_decoder = gpt2;
  for (auto* config : {&rotary, &rotary_decoder}) {
    config->norm_kind = kernels::NormKind::rms;
    config->positions = model::Positions::rotary;
  }
  return {pre, post, gpt2, rotary, rotary_decoder};
}

// Heads that attention reads in place, and more keys than it takes at once.
model::ModelConfig wide_model(model::ModelConfig config) {
  config.width = 32;
  config.max_length = 160;
  return config;
}

void check_same(const std::vector<Hypothesis>& got, const std::vector<Hypothesis>& expected) {
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    CHECK(got[i].tokens == expected[i].tokens);
    CHECK(got[i].finished == expected[i].finished);
    CHECK(got[i].log_probability == doctest::Approx(expected[i].log_probability).epsilon(1e-4));
    CHECK(got[i].score == doctest::Approx(expected[i].score).epsilon(1e-4));
  }
}

// Every token is one that full forward passes give nearly the best log probability.
void check_near_arg_max(GenerationSetup& setup, const std::vector<std::vector<int32_t>>& inputs,
                        const std::vector<std::vector<Hypothesis>>& outputs, double tolerance) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::vector<int32_t> prefix;
    for (const int32_t token : outputs[i][0].tokens) {
      const auto next = plain_next(setup, inputs[i], prefix);
      CHECK(next[size_t(token)] > *std::max_element(next.begin(), next.end()) - tolerance);
      prefix.push_back(token);
    }
  }
}

}  // namespace

TEST_CASE("greedy generation takes the arg max of full forward passes, token for token") {
  const auto backend = kernels::make_cpu_backend();
  for (const auto& config : tiny_models())
    for (uint64_t seed : {1, 2, 3}) {
      CAPTURE(int(config.family));
      CAPTURE(seed);
      GenerationSetup setup = make_setup(*backend, config, seed);
      const auto inputs = random_inputs(config, {3, 0, 7, 1, 5, 5, 12}, seed);
      const GenerateOptions options;
      const Generator generator(*backend, *setup.model, setup.state.view(), options);
      const auto outputs = generator.generate(inputs, 1);
      REQUIRE(outputs.size() == inputs.size());
      for (size_t i = 0; i < inputs.size(); ++i)
        check_same(outputs[i], {plain_greedy(setup, inputs[i], options)});
    }
}

TEST_CASE("outputs that the cache has to make room for several times are those of full forward passes") {
  const auto backend = kernels::make_cpu_backend();
  for (model::ModelConfig config : tiny_models()) {
    CAPTURE(int(config.family));
    config.max_length = 70;
    GenerationSetup setup = make_setup(*backend, config, 4);
    const auto inputs = random_inputs(config, {3, 1, 12}, 4);
    GenerateOptions options;
    options.tokens_max = 53;
    options.tokens_per_source = 0;
    const Generator generator(*backend, *setup.model, setup.state.view(), options);
    const auto outputs = generator.generate(inputs, 1);
    size_t longest = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      check_same(outputs[i], {plain_greedy(setup, inputs[i], options)});
      longest = std::max(longest, outputs[i][0].tokens.size());
    }
    CHECK(longest > 48);
  }
}

TEST_CASE("beam search finds what a search without cache, early stopping or top-k finds") {
  const auto backend = kernels::make_cpu_backend();
  for (const auto& config : tiny_models())
    for (const auto& [beam, n_best, alpha] : std::vector<std::tuple<int, int, double>>{
             {1, 1, 0.6}, {2, 1, 0.0}, {3, 3, 0.6}, {5, 2, 1.5}, {28, 4, 1.0}}) {
      CAPTURE(int(config.family));
      CAPTURE(beam);
      GenerationSetup setup = make_setup(*backend, config, uint64_t(beam));
      const auto inputs = random_inputs(config, {2, 6, 0, 4}, uint64_t(beam));
      GenerateOptions options;
      options.beam = beam;
      options.n_best = n_best;
      options.length_penalty = alpha;
      options.tokens_max = beam > 10 ? 4 : 18;
      const Generator generator(*backend, *setup.model, setup.state.view(), options);
      const auto outputs = generator.generate(inputs, 2);
      for (size_t i = 0; i < inputs.size(); ++i)
        check_same(outputs[i], plain_beam(setup, inputs[i], options));
    }
}

TEST_CASE("a sentence gets the same tokens alone and in any batch, in the order of the inputs") {
  const auto backend = kernels::make_cpu_backend();
  for (const auto& config : tiny_models()) {
    CAPTURE(int(config.family));
    GenerationSetup setup = make_setup(*backend, config, 11);
    const auto inputs = random_inputs(config, {9, 1, 4, 17, 2, 2, 0, 30, 8, 6, 1, 3}, 11);
    GenerateOptions options;
    options.beam = 3;
    options.n_best = 2;
    options.batch_sequences = 1;
    const auto alone = Generator(*backend, *setup.model, setup.state.view(), options).generate(inputs, 1);
    for (const int64_t sequences : {2, 5, 64})
      for (const int threads : {1, 3}) {
        options.batch_sequences = sequences;
        const auto together =
            Generator(*backend, *setup.model, setup.state.view(), options).generate(inputs, threads);
        REQUIRE(together.size() == alone.size());
        for (size_t i = 0; i < alone.size(); ++i) check_same(together[i], alone[i]);
      }
  }
}

TEST_CASE(
    "packed for inference, a sentence's outputs are the same bits alone and in twenty different batches") {
  using kernels::DType;
  const auto backend = kernels::make_cpu_backend();
  const std::vector<size_t> short_lengths{9, 1, 4, 17, 2, 2, 0, 30, 8, 6, 1, 3},
      long_lengths{1, 127, 128, 150};
  auto models = tiny_models();
  const size_t short_models = models.size();
  for (const size_t one : {0, 2}) models.push_back(wide_model(models[one]));
  for (size_t m = 0; m < models.size(); ++m)
    for (const auto& [compute, type] : std::vector<std::pair<DType, DType>>{{DType::f32, DType::f32},
                                                                            {DType::bf16, DType::bf16},
                                                                            {DType::f32, DType::i8},
                                                                            {DType::bf16, DType::i8}}) {
      CAPTURE(m);
      CAPTURE(to_string(type));
      model::ModelConfig config = models[m];
      config.compute = compute;
      GenerationSetup setup = make_setup(*backend, config, 12);
      const auto packed = model::pack_weights(*backend, *setup.stream, *setup.model,
                                              setup.state.weight_data(), {type, kernels::Packing::inference});
      const model::WeightsView weights{setup.state.weight_data(), &packed.views};
      const auto inputs = random_inputs(config, m < short_models ? short_lengths : long_lengths, 12);
      for (const int64_t beam : {1, 3}) {
        GenerateOptions options;
        options.beam = options.n_best = beam;
        options.tokens_max = m < short_models ? 0 : 12;
        options.batch_sequences = 1;
        const auto alone = Generator(*backend, *setup.model, weights, options).generate(inputs, 1);
        for (int batches = 0; batches < 20; ++batches) {
          // Others beside it, in another order, and cut into batches elsewhere.
          std::vector<size_t> order(inputs.size());
          for (size_t i = 0; i < order.size(); ++i)
            order[i] = (i * size_t(batches % 5 * 2 + 1) + 3) % order.size();
          std::vector<std::vector<int32_t>> shuffled;
          for (const size_t i : order) shuffled.push_back(inputs[i]);
          options.batch_sequences = 2 + batches % 11;
          const auto together =
              Generator(*backend, *setup.model, weights, options).generate(shuffled, 1 + batches % 3);
          for (size_t i = 0; i < order.size(); ++i) {
            const auto& expected = alone[order[i]];
            REQUIRE(together[i].size() == expected.size());
            for (size_t h = 0; h < expected.size(); ++h) {
              CHECK(together[i][h].tokens == expected[h].tokens);
              CHECK(together[i][h].log_probability == expected[h].log_probability);
            }
          }
        }
      }
    }
}

TEST_CASE("generation with 8-bit weights takes tokens that are within their rounding of the arg max") {
  const auto backend = kernels::make_cpu_backend();
  for (const auto& config : tiny_models()) {
    GenerationSetup setup = make_setup(*backend, config, 5);
    const auto packed = model::pack_weights(*backend, *setup.stream, *setup.model, setup.state.weight_data(),
                                            kernels::DType::i8);
    const auto inputs = random_inputs(config, {3, 8, 5}, 5);
    const auto outputs =
        Generator(*backend, *setup.model, {setup.state.weight_data(), &packed.views}, {}).generate(inputs, 1);
    check_near_arg_max(setup, inputs, outputs, 0.3);
  }
}

TEST_CASE("bf16 generation takes tokens that are within rounding of the arg max") {
  const auto backend = kernels::make_cpu_backend();
  for (auto config : tiny_models()) {
    config.compute = kernels::DType::bf16;
    GenerationSetup setup = make_setup(*backend, config, 5);
    const auto inputs = random_inputs(config, {3, 8, 5}, 5);
    const auto outputs = Generator(*backend, *setup.model, setup.state.view(), {}).generate(inputs, 1);
    check_near_arg_max(setup, inputs, outputs, 0.1);
  }
}

TEST_CASE("no input, limits of length and inputs that are too long or not of the vocabulary") {
  const auto backend = kernels::make_cpu_backend();
  for (const auto& config : tiny_models()) {
    GenerationSetup setup = make_setup(*backend, config, 21);
    GenerateOptions options;
    options.tokens_max = 1;
    const Generator one(*backend, *setup.model, setup.state.view(), options);
    CHECK(one.generate({}, 2).empty());
    const auto longest = random_inputs(config, {size_t(one.input_tokens_max()), 1}, 2);
    for (const auto& output : one.generate(longest, 1)) {
      REQUIRE(output.size() == 1);
      CHECK(output[0].tokens.size() <= 1);
    }
    options.tokens_max = 0;
    options.tokens_per_source = 0;
    const Generator all(*backend, *setup.model, setup.state.view(), options);
    check_same(all.generate(longest, 1)[0], {plain_greedy(setup, longest[0], options)});
    const auto too_long = random_inputs(config, {1, size_t(one.input_tokens_max()) + 1}, 2);
    CHECK_THROWS_WITH_AS(one.generate(too_long, 1), "input 2 has 32 tokens; the model takes at most 31",
                         Error);
    CHECK_THROWS_AS(one.generate(std::vector<std::vector<int32_t>>{{29}}, 1), Error);
  }
}

TEST_CASE("impossible options are refused by name") {
  const model::ModelConfig config = tiny_config();
  const auto refused = [&](auto change) {
    GenerateOptions options;
    change(options);
    CHECK_THROWS_AS(model::validate(options, config), Error);
  };
  model::validate(GenerateOptions{}, config);
  refused([](GenerateOptions& o) { o.beam = 0; });
  refused([](GenerateOptions& o) { o.beam = 30; });
  refused([](GenerateOptions& o) { o.n_best = 2; });
  refused([](GenerateOptions& o) { o.length_penalty = -0.1; });
  refused([](GenerateOptions& o) { o.tokens_max = -1; });
  refused([](GenerateOptions& o) { o.batch_sequences = 0; });
  refused([](GenerateOptions& o) { o.batch_tokens = 0; });
}
