// Speed of generation: sentences of random tokens through an encoder-decoder with random weights, every
// output as long as asked (with such weights hardly one ends by itself). Prints one JSON line. See --help.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "kernels/base/random.hpp"
#include "kernels/cpu/backend.hpp"
#include "model/generate.hpp"
#include "model/state.hpp"

namespace {

using namespace troupe;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string model = "base", precision = "int8";
  int threads = int(std::thread::hardware_concurrency());
  int64_t batch = 64, source = 30, target = 30, beam = 1;
  double seconds = 10;
};

model::ModelConfig config_of(const Options& options) {
  model::ModelConfig config;  // small
  if (options.model == "base") {
    config.vocabulary = 32000;
    config.width = 512;
    config.inner = 2048;
    config.encoder_layers = config.decoder_layers = 6;
  }
  config.compute = options.precision == "f32" ? kernels::DType::f32 : kernels::DType::bf16;
  return config;
}

std::vector<std::vector<int32_t>> random_sentences(const Options& options, int64_t vocabulary,
                                                   int64_t count) {
  std::vector<std::vector<int32_t>> sentences;
  for (int64_t s = 0; s < count; ++s) {
    sentences.emplace_back();
    for (int64_t t = 0; t < options.source; ++t)
      sentences.back().push_back(int32_t(4 + mix64(uint64_t(s), uint64_t(t)) % uint64_t(vocabulary - 4)));
  }
  return sentences;
}

double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[size_t(share * double(values.size() - 1) + 0.5)];
}

int measure(const Options& options) {
  const auto backend = kernels::make_cpu_backend();
  const auto stream = backend->create_stream();
  const model::ModelConfig config = config_of(options);
  const auto shape = model::make_model(config);
  const model::TrainState state = model::initial_state(*backend, *stream, *shape, 1);
  const auto dtype = options.precision == "int8" ? kernels::DType::i8 : config.compute;
  const kernels::PackedType type(dtype, kernels::Packing::inference);
  const model::PackedWeights packed =
      model::pack_weights(*backend, *stream, *shape, state.weight_data(), type);
  model::GenerateOptions generate;
  generate.beam = options.beam;
  generate.tokens_max = options.target;
  generate.batch_sequences = options.batch;
  const model::Generator generator(*backend, *shape, {state.weight_data(), &packed.views}, generate);

  // As many batches as threads: no thread is without work.
  const auto sentences = random_sentences(options, config.vocabulary, options.batch * options.threads);
  generator.generate(sentences, options.threads);  // primitives are made, memory is touched
  int64_t tokens = 0;
  std::vector<double> seconds;
  const auto begin = Clock::now();
  double total = 0;
  while (total < options.seconds || seconds.size() < 3) {
    const auto before = Clock::now();
    for (const auto& outputs : generator.generate(sentences, options.threads))
      tokens += int64_t(outputs[0].tokens.size()) + (outputs[0].finished ? 1 : 0);
    seconds.push_back(std::chrono::duration<double>(Clock::now() - before).count());
    total = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  fmt::print(
      "{{\"system\":\"troupe\",\"mode\":\"{}\",\"threads\":{},\"tokens_per_s\":{:.1f},\"p50_ms\":{:.2f},"
      "\"p99_ms\":{:.2f}}}\n",
      options.precision, options.threads, double(tokens) / total, percentile(seconds, 0.5) * 1e3,
      percentile(seconds, 0.99) * 1e3);
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  Options options;
  CLI::App app{"Tokens a second of translation with random weights"};
  app.add_option("--model", options.model)->check(CLI::IsMember({"small", "base"}))->capture_default_str();
  app.add_option("--precision", options.precision)
      ->check(CLI::IsMember({"int8", "bf16", "f32"}))
      ->capture_default_str();
  app.add_option("--threads", options.threads)->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("--batch", options.batch)->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--source", options.source, "Tokens of a sentence")
      ->check(CLI::Range(1, 250))
      ->capture_default_str();
  app.add_option("--target", options.target, "Tokens of an output")
      ->check(CLI::Range(1, 250))
      ->capture_default_str();
  app.add_option("--beam", options.beam)->check(CLI::Range(1, 64))->capture_default_str();
  app.add_option("--seconds", options.seconds)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return measure(options);
} catch (const std::exception& problem) {
  std::fprintf(stderr, "bench_translate: %s\n", problem.what());
  return 1;
}
