// An estimate of the least time that a step of training could take on this machine: for each of its products
// the operations over what the faster of oneDNN and Troupe reaches at that very shape, T threads side by
// side, and the bytes that must pass through memory over the rate at which T threads read or copy it,
// whichever is faster. Products of attention count as plain products, by oneDNN alone, and bytes once; bytes
// that stay in a cache can be faster. Prints one JSON line of milliseconds. See --help.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "bench/matrices.hpp"
#include "bench/products.hpp"
#include "bench/workload.hpp"
#include "model/model.hpp"

namespace {

using namespace troupe;
using namespace troupe::bench;
using dnnl::memory;

struct Options {
  WorkloadOptions workload;
  int threads = int(std::thread::hardware_concurrency());
  int64_t slots = 4;
  double seconds = 0.2;  // of measuring, a shape
};

// Of a linear layer, or a product that Troupe has no function for.
enum class Pass : uint8_t { plain, forward, input, weight };

// Products of one kind: how often a slot has them, and how much of each is needed (a causal mask leaves
// half).
struct Part {
  ProductShape shape;
  Pass pass = Pass::plain;
  double count = 1;
};

void add_linear(std::vector<Part>& parts, int64_t rows, int64_t n, int64_t k, double count) {
  parts.push_back({forward(rows, n, k), Pass::forward, count});
  parts.push_back({backward_input(rows, n, k), Pass::input, count});
  parts.push_back({backward_weight(rows, n, k), Pass::weight, count});
}

// q k^T and the product with v; backward the two gradients of each.
void add_attention(std::vector<Part>& parts, const Workload& w, int64_t rows, double count) {
  const int64_t depth = w.config.width / w.config.heads, batch = rows / w.length * w.config.heads;
  const ProductShape weights{w.length, w.length, depth, batch, false, true, false};
  const ProductShape values{w.length, depth, w.length, batch, false, false, false};
  parts.push_back({weights, Pass::plain, 2 * count});
  parts.push_back({values, Pass::plain, 4 * count});
}

// Those of a slot's rows.
struct Step {
  std::vector<Part> linear, attention, vocabulary;
};
Step step_of(const Workload& w, int64_t rows) {
  const auto& c = w.config;
  const bool translates = c.family == model::Family::encoder_decoder;
  const double layers = double(c.encoder_layers + c.decoder_layers),
               cross = translates ? double(c.decoder_layers) : 0;
  Step step;
  add_linear(step.linear, rows, 3 * c.width, c.width, layers);
  add_linear(step.linear, rows, c.width, c.width, layers + 2 * cross);
  add_linear(step.linear, rows, c.inner, c.width, layers);
  add_linear(step.linear, rows, c.width, c.inner, layers);
  if (cross > 0) add_linear(step.linear, rows, 2 * c.width, c.width, cross);
  add_attention(step.attention, w, rows, double(c.encoder_layers) + cross + 0.5 * double(c.decoder_layers));
  add_linear(step.vocabulary, rows, c.vocabulary, c.width, 1);
  return step;
}

// Operations a second of all threads.
double onednn_rate(const Part& part, const Options& options, memory::data_type type) {
  return rate(options.threads, options.seconds, [&]() -> std::function<double()> {
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    Product product(engine, part.shape, type, part.pass == Pass::weight ? memory::data_type::f32 : type);
    return [product, stream = dnnl::stream(engine)]() mutable {
      product.run(stream);
      stream.wait();
      return product.flops();
    };
  });
}

double own_rate(const Part& part, const Options& options, kernels::DType type) {
  return rate(options.threads, options.seconds, [&]() -> std::function<double()> {
    const auto on = std::make_shared<Matrices>();
    // The left operand, the right one and the result, or their roles by turns, of y (M, N) = x (M, K) W^T.
    const auto& [shape, pass, count] = part;
    const int64_t m = pass == Pass::weight ? shape.k : shape.m, k = pass == Pass::forward ? shape.k : shape.n,
                  n = pass == Pass::forward ? shape.n
                      : pass == Pass::input ? shape.k
                                            : shape.m;
    const kernels::View x = on->matrix(type, m, k), y = on->matrix(type, m, n);
    const double flops = shape.flops();
    if (pass == Pass::weight)
      return [on, x, y, dw = on->matrix(kernels::DType::f32, n, k), flops] {
        on->stream().linear_backward_weight(y, x, dw, {});
        return flops;
      };
    return [on, x, y, weight = on->weight(type, n, k), flops, forward = pass == Pass::forward] {
      if (forward)
        on->stream().linear_forward(x, weight, {}, y);
      else
        on->stream().linear_backward_input(y, weight, x, false);
      return flops;
    };
  });
}

// Milliseconds of all slots' products, shared out among the threads.
double products_ms(const std::vector<Part>& parts, const Options& options, kernels::DType type) {
  const bool bf16 = type == kernels::DType::bf16 && multiplies_bf16();
  double ms = 0;
  for (const Part& part : parts) {
    double best = onednn_rate(part, options, bf16 ? memory::data_type::bf16 : memory::data_type::f32);
    if (part.pass != Pass::plain) best = std::max(best, own_rate(part, options, type));
    ms += double(options.slots) * part.count * part.shape.flops() / best * 1e3;
  }
  return ms;
}

struct Bytes {
  double update = 0, sums = 0, activations = 0;
};
Bytes bytes_of(const Workload& w, const model::ParameterTable& table, int64_t slots) {
  const auto& c = w.config;
  const double weights = double(table.layout().elements()), width = double(kernels::size_of(c.compute));
  Bytes bytes;
  // Weights and two moments are read and written, the packed copy is written.
  bytes.update = weights * (2 * 12 + (c.compute == kernels::DType::bf16 ? 2 : 0));
  // 64-bit sums: each slot reads and writes them, the rounding reads and clears them; totals of 32 bits.
  bytes.sums = weights * (double(slots) * 16 + 16 + 8);
  // What the backward pass reads of a layer is written once and read once: the norms' outputs, queries, keys
  // and values, attention's output, the residual stream, the inner activations.
  const double cross = c.family == model::Family::encoder_decoder ? double(c.decoder_layers) : 0;
  const double channels = double(c.encoder_layers + c.decoder_layers) * double(8 * c.width + c.inner) +
                          cross * double(6 * c.width);
  bytes.activations = 2 * double(w.tokens()) * channels * width;
  return bytes;
}

int run(const Options& options) {
  const Workload w = workload_of(options.workload);
  if (w.sentences % options.slots != 0) {
    fmt::print(stderr, "bench_step_ceiling: --slots {} does not divide {} sentences\n", options.slots,
               w.sentences);
    return 2;
  }
  const auto shape = model::make_model(w.config);
  const Step step = step_of(w, w.tokens() / options.slots);
  const Bytes bytes = bytes_of(w, shape->parameters(), options.slots);
  const double linear = products_ms(step.linear, options, w.config.compute),
               attention = products_ms(step.attention, options, w.config.compute),
               vocabulary = products_ms(step.vocabulary, options, w.config.compute);
  const double ms_a_byte =
      1e3 / std::max(rate(options.threads, 1.0, reading_pass), rate(options.threads, 1.0, copying_pass));
  const double moved = (bytes.update + bytes.sums + bytes.activations) * ms_a_byte;
  fmt::print(
      "{{\"model\": \"{}\", \"dtype\": \"{}\", \"threads\": {}, \"slots\": {}, \"linear_ms\": {:.2f}, "
      "\"attention_ms\": {:.2f}, \"vocabulary_ms\": {:.2f}, \"update_ms\": {:.2f}, \"sums_ms\": {:.2f}, "
      "\"activations_ms\": {:.2f}, \"step_ms\": {:.2f}, \"tokens_per_s\": {:.1f}}}\n",
      options.workload.model, options.workload.dtype, options.threads, options.slots, linear, attention,
      vocabulary, bytes.update * ms_a_byte, bytes.sums * ms_a_byte, bytes.activations * ms_a_byte,
      linear + attention + vocabulary + moved,
      double(w.tokens()) / (linear + attention + vocabulary + moved) * 1e3);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Estimates the least time that a step of training could take on this machine",
               "bench_step_ceiling");
  add_options(app, options.workload);
  app.add_option("--threads", options.threads)->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--slots", options.slots, "Of a step; divides its sentences")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "Of measuring, a shape")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return run(options);
}
