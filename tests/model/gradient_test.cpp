// Derivatives of whole tiny models, against differences of the loss along single weights of every parameter.
#include <algorithm>
#include <cmath>

#include <doctest/doctest.h>

#include "kernels/cpu/backend.hpp"
#include "kernels/cuda/emulated.hpp"
#include "model/device_trainer.hpp"
#include "model/parameters.hpp"
#include "tests/model/support.hpp"
#if defined(TROUPE_CUDA)
#include "kernels/cuda/backend.hpp"
#endif

using namespace troupe;
using namespace troupe::model;
using namespace troupe::testing;

namespace {

constexpr float kSmoothing = 0.1f;

// Gives this thread the floating-point state that it has where it trains, without denormals: making a CPU
// stream does so, and that of a device does not. First weights and AdamW's numbers are computed on the host.
struct HostFloats {
  std::unique_ptr<kernels::Stream> stream = kernels::make_cpu_backend()->create_stream();
};

// A model with weights, wherever they are.
class Probed {
 public:
  virtual ~Probed() = default;
  virtual const ParameterTable& parameters() const = 0;
  virtual float weight(int64_t element) const = 0;
  virtual std::vector<float> gradient(const Batch& batch) = 0;
  // The loss when one weight, of parameter `index`, has another value.
  virtual double loss_with(size_t index, int64_t element, float value, const Batch& batch) = 0;
};

class ProbedBackend final : public Probed {
 public:
  ProbedBackend(std::unique_ptr<kernels::Backend> backend, const ModelConfig& config)
      : subject_(std::move(backend), config) {}
  const ParameterTable& parameters() const override { return subject_.model->parameters(); }
  float weight(int64_t element) const override { return subject_.state.weight_data()[element]; }
  std::vector<float> gradient(const Batch& batch) override { return subject_.gradient(batch, kSmoothing); }
  double loss_with(size_t index, int64_t element, float value, const Batch& batch) override {
    float& weight = subject_.state.weight_data()[element];
    const float before = weight;
    weight = value;
    pack_parameter(*subject_.stream, parameters(), index, subject_.state);
    const double result = subject_.evaluate(batch, kSmoothing).loss;
    weight = before;
    pack_parameter(*subject_.stream, parameters(), index, subject_.state);
    return result;
  }

 private:
  Subject subject_;
};

// As a device trains: the gradient is what a slot adds to the exact sum.
class ProbedDevice final : public Probed {
 public:
  ProbedDevice(std::unique_ptr<kernels::CudaStream> stream, const ModelConfig& config)
      : stream_(std::move(stream)),
        model_(make_model(config)),
        state_(perturbed(*model_)),
        trainer_(*stream_, *model_, options(), state_) {}
  const ParameterTable& parameters() const override { return model_->parameters(); }
  float weight(int64_t element) const override { return state_.weight_data()[element]; }
  std::vector<float> gradient(const Batch& batch) override {
    trainer_.clear_sum();
    uint32_t flags = 0;
    trainer_.fold_slot(batch, 0, flags);
    CHECK(flags == kernels::kSumClean);
    std::vector<int64_t> sums(size_t(state_.elements));
    trainer_.sum().copy_to_host(*stream_, sums.data());
    std::vector<float> gradient;
    for (const int64_t sum : sums) gradient.push_back(float(std::ldexp(double(sum), -40)));
    return gradient;
  }
  double loss_with(size_t index, int64_t element, float value, const Batch& batch) override {
    set(index, element, value);
    const double result = trainer_.evaluate_slot(batch).loss;
    set(index, element, weight(element));
    return result;
  }

 private:
  void set(size_t index, int64_t element, float value) {
    stream_->runtime().copy_in(trainer_.state().weight_data() + element, &value, sizeof value);
    pack_parameter(*stream_, parameters(), index, trainer_.state());
  }
  static StepOptions options() {
    StepOptions options;
    options.slots = 1;
    options.bits = 24;
    options.optimizer.label_smoothing = kSmoothing;
    return options;
  }
  static TrainState perturbed(const Model& model) {
    TrainState state = first_state(kernels::allocate_host, model, 7);
    perturb(state, 5, 0.05f);
    return state;
  }

  std::unique_ptr<kernels::CudaStream> stream_;
  std::unique_ptr<Model> model_;
  TrainState state_;  // on the host
  DeviceTrainer trainer_;
};

// Largest error of any checked derivative, relative to the parameter's own gradient.
void check_gradients(Probed& subject, const Batch& batch) {
  constexpr float kStep = 1.0f / 64;
  const std::vector<float> gradient = subject.gradient(batch);
  for (size_t i = 0; i < subject.parameters().all().size(); ++i) {
    const Parameter& p = subject.parameters().all()[i];
    const int64_t count = p.rows * p.cols;
    double squares = 0;
    for (int64_t e = 0; e < count; ++e) squares += std::pow(double(gradient[size_t(p.offset + e)]), 2);
    const double scale = std::sqrt(squares / double(count));
    for (int64_t probe = 0; probe < 4; ++probe) {
      const int64_t element = p.offset + (probe * 7919 + 13 * int64_t(i)) % count;
      const float w = subject.weight(element);
      double difference = 0, weights[] = {8.0, -1.0};
      for (int k = 1; k <= 2; ++k)
        difference += weights[k - 1] * (subject.loss_with(i, element, w + float(k) * kStep, batch) -
                                        subject.loss_with(i, element, w - float(k) * kStep, batch));
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

// The same with a layer in each stack.
std::vector<Case> shallow_cases() {
  std::vector<Case> all = cases();
  for (Case& c : all) {
    c.config.encoder_layers = std::min<int64_t>(c.config.encoder_layers, 1);
    c.config.decoder_layers = 1;
  }
  return all;
}

}  // namespace

TEST_CASE("gradients of every parameter equal differences of the loss, on plain loops") {
  for (const Case& c : cases()) {
    CAPTURE(c.name);
    ProbedBackend subject(make_reference_backend(), c.config);
    check_gradients(subject, random_batch(c.config, {}, 3));
  }
}

TEST_CASE("gradients of every parameter equal differences of the loss, on the CPU backend") {
  for (const Case& c : cases()) {
    CAPTURE(c.name);
    ProbedBackend subject(kernels::make_cpu_backend(), c.config);
    check_gradients(subject, random_batch(c.config, {}, 3));
  }
}

TEST_CASE("gradients equal differences of the loss where products do the activations' work") {
  const HostFloats floats;
  ModelConfig config = gpt2_config(1, 16, 2, 29, 32);
  config.dropout = 0;
  config.compute = kernels::DType::f32;
  ProbedBackend subject(make_emulated_backend(), config);
  check_gradients(subject, random_batch(config, {}, 3));
}

TEST_CASE("gradients that a slot on a device adds to the sum equal differences of the loss, emulated") {
  const HostFloats floats;
  for (const Case& c : shallow_cases()) {
    if (c.config.norm_kind != kernels::NormKind::rms) continue;  // slow; the GPU runs all
    CAPTURE(c.name);
    ProbedDevice subject(kernels::make_emulated_stream(kernels::ThreadOrder::forward), c.config);
    check_gradients(subject, random_batch(c.config, {}, 3));
  }
}

#if defined(TROUPE_CUDA)
TEST_CASE("gradients of every parameter equal differences of the loss, on the GPU" *
          doctest::skip(kernels::cuda_device_count() == 0)) {
  const HostFloats floats;
  for (const Case& c : shallow_cases()) {
    CAPTURE(c.name);
    ProbedDevice subject(kernels::make_cuda_stream(0), c.config);
    check_gradients(subject, random_batch(c.config, {}, 3));
  }
}
#endif
