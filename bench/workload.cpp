#include "bench/workload.hpp"

#include <algorithm>

namespace troupe::bench {

void add_options(CLI::App& app, WorkloadOptions& options) {
  app.add_option("--model", options.model)
      ->check(CLI::IsMember({"small", "base", "gpt2"}))
      ->capture_default_str();
  app.add_option("--dtype", options.dtype)->check(CLI::IsMember({"f32", "bf16"}))->capture_default_str();
  app.add_option("--width", options.width, "Instead of the model's; a multiple of 32")
      ->check(CLI::Range(32, 8192));
  app.add_option("--layers", options.layers, "Of encoder and decoder each")->check(CLI::Range(1, 1000));
  app.add_option("--sentences", options.sentences, "Of a step")->check(CLI::Range(1, 1'000'000));
  app.add_option("--length", options.length, "Tokens of each sentence")->check(CLI::Range(2, 1'000'000));
}

Workload workload_of(const WorkloadOptions& options) {
  Workload w;
  if (options.model == "small") {
    w = {{}, 64, 64};
  } else if (options.model == "base") {
    w = {{}, 16, 64};
    w.config.vocabulary = 32000;
    w.config.width = 512;
    w.config.inner = 2048;
    w.config.encoder_layers = w.config.decoder_layers = 6;
  } else {
    w = {model::gpt2_config(12, 768, 12, 50257, 1024), 4, 256};
  }
  if (options.width > 0) {  // heads of 32 and inner layers of 4 times the width, as in small
    w.config.width = options.width;
    w.config.inner = 4 * options.width;
    w.config.heads = options.width / 32;
  }
  if (options.layers > 0) {
    if (w.config.family == model::Family::encoder_decoder) w.config.encoder_layers = options.layers;
    w.config.decoder_layers = options.layers;
  }
  if (options.sentences > 0) w.sentences = options.sentences;
  if (options.length > 0) w.length = options.length;
  w.config.max_length = std::max(w.config.max_length, w.length);
  model::validate(w.config);
  w.config.compute = options.dtype == "bf16" ? kernels::DType::bf16 : kernels::DType::f32;
  return w;
}

double flops_a_step(const Workload& w, const model::ParameterTable& table) {
  const auto& c = w.config;
  const double tokens = double(w.sentences * w.length);
  double weights = double(c.vocabulary * c.width);  // the output projection
  for (const auto& p : table.all())
    if (p.kind == model::ParameterKind::matrix) weights += double(p.rows * p.cols);
  const bool translates = c.family == model::Family::encoder_decoder;
  const double attentions = double(c.encoder_layers) + double(c.decoder_layers) * (translates ? 1.5 : 0.5);
  return 6 * weights * tokens + 12 * attentions * tokens * double(w.length) * double(c.width);
}

}  // namespace troupe::bench
