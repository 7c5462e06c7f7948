// Derivatives of whole tiny models, against differences of the loss along single weights of every parameter.
#include <algorithm>
#include <cmath>

#include <doctest/doctest.h>

#include "kernels/cpu/backend.hpp"
#include "model/parameters.hpp"
#include "tests/model/support.hpp"

using namespace troupe;
using namespace troupe::model;
using namespace troupe::testing;

namespace {

// The loss when one weight has another value.
double loss_with(Subject& subject, size_t index, int64_t element, float value, const Batch& batch,
                 float smoothing) {
  float& weight = subject.state.weight_data()[element];
  const float before = weight;
  weight = value;
  pack_parameter(*subject.stream, subject.model->parameters(), index, subject.state);
  const double result = subject.evaluate(batch, smoothing).loss;
  weight = before;
  pack_parameter(*subject.stream, subject.model->parameters(), index, subject.state);
  return result;
}

// Largest error of any checked derivative, relative to the parameter's own gradient.
void check_gradients(Subject& subject, const Batch& batch) {
  constexpr float kSmoothing = 0.1f, kStep = 1.0f / 64;
  const std::vector<float> gradient = subject.gradient(batch, kSmoothing);
  for (size_t i = 0; i < subject.model->parameters().all().size(); ++i) {
    const Parameter& p = subject.model->parameters().all()[i];
    const int64_t count = p.rows * p.cols;
    double squares = 0;
    for (int64_t e = 0; e < count; ++e) squares += std::pow(double(gradient[size_t(p.offset + e)]), 2);
    const double scale = std::sqrt(squares / double(count));
    for (int64_t probe = 0; probe < 4; ++probe) {
      const int64_t element = p.offset + (probe * 7919 + 13 * int64_t(i)) % count;
      const float w = subject.state.weight_data()[element];
      double difference = 0, weights[] = {8.0, -1.0};
      for (int k = 1; k <= 2; ++k)
        difference +=
            weights[k - 1] * (loss_with(subject, i, element, w + float(k) * kStep, batch, kSmoothing) -
                              loss_with(subject, i, element, w - float(k) * kStep, batch, kSmoothing));
      const double numeric = difference / (12 * double(kStep));
      const double analytic = double(gradient[size_t(element)]);
      INFO(p.name << " element " << element - p.offset << ": " << analytic << ", by differences " << numeric);
      CHECK(std::abs(analytic - numeric) < 2e-3 * std::max({scale, std::abs(analytic), 0.05}));
    }
  }
}

struct Case {
  const char* name;
  ModelConfig config;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (NormPlacement norm : {NormPlacement::pre, NormPlacement::post}) {
    ModelConfig c = tiny_config();
    c.norm = norm;
    c.activation = kernels::Activation::gelu;  // smooth, so that differences are exact enough
    all.push_back(
        {norm == NormPlacement::pre ? "pre-norm, sinusoidal, tied" : "post-norm, sinusoidal, tied", c});
    c.positions = Positions::learned;
    c.tied_embeddings = false;
    all.push_back(
        {norm == NormPlacement::pre ? "pre-norm, learned, untied" : "post-norm, learned, untied", c});
  }
  ModelConfig gpt = gpt2_config(2, 16, 2, 29, 32);
  gpt.dropout = 0;
  gpt.compute = kernels::DType::f32;
  all.push_back({"decoder-only, tied", gpt});
  gpt.tied_embeddings = false;
  all.push_back({"decoder-only, untied", gpt});
  gpt.norm_kind = kernels::NormKind::rms;
  gpt.positions = Positions::rotary;
  all.push_back({"decoder-only, RMS norm, rotary", gpt});
  for (const NormPlacement norm : {NormPlacement::pre, NormPlacement::post}) {
    ModelConfig c = tiny_config();
    c.norm = norm;
    c.norm_kind = kernels::NormKind::rms;
    c.positions = Positions::rotary;
    c.activation = kernels::Activation::gelu;
    all.push_back({norm == NormPlacement::pre ? "pre-norm, RMS, rotary" : "post-norm, RMS, rotary", c});
  }
  return all;
}

}  // namespace

TEST_CASE("gradients of every parameter equal differences of the loss, on plain loops") {
  for (const Case& c : cases()) {
    CAPTURE(c.name);
    Subject subject(make_reference_backend(), c.config);
    check_gradients(subject, random_batch(c.config, {}, 3));
  }
}

TEST_CASE("gradients of every parameter equal differences of the loss, on the CPU backend") {
  for (const Case& c : cases()) {
    CAPTURE(c.name);
    Subject subject(kernels::make_cpu_backend(), c.config);
    check_gradients(subject, random_batch(c.config, {}, 3));
  }
}

TEST_CASE("gradients equal differences of the loss where products do the activations' work") {
  const auto cpu = kernels::make_cpu_backend()->create_stream();  // sets this thread's floating-point state
  ModelConfig config = gpt2_config(1, 16, 2, 29, 32);
  config.dropout = 0;
  config.compute = kernels::DType::f32;
  Subject subject(make_emulated_backend(), config);
  check_gradients(subject, random_batch(config, {}, 3));
}
