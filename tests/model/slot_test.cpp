// What a slot promises: padding that does not count, masks keyed by place, memory as planned.
#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include "kernels/accumulator.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/scratch.hpp"
#include "model/parameters.hpp"
#include "tests/model/support.hpp"

using namespace troupe;
using namespace troupe::model;
using namespace troupe::testing;

namespace {

std::vector<ModelConfig> families() {
  ModelConfig translator = tiny_config(), post = tiny_config(), gpt = gpt2_config(2, 16, 2, 29, 32);
  post.norm = NormPlacement::post;
  post.positions = Positions::learned;
  gpt.dropout = 0;
  gpt.compute = kernels::DType::f32;
  ModelConfig rms = tiny_config();
  rms.norm_kind = kernels::NormKind::rms;
  rms.positions = Positions::rotary;
  return {translator, post, gpt, rms};
}

std::unique_ptr<kernels::Backend> cpu() {
  return kernels::make_cpu_backend();
}

ModelConfig with_dropout(ModelConfig config) {
  config.dropout = 0.3f;
  config.attention_dropout = 0.2f;
  config.activation_dropout = 0.1f;
  return config;
}

}  // namespace

TEST_CASE("the model on the CPU backend computes what it computes on plain loops") {
  std::vector<ModelConfig> configs = families();
  ModelConfig odd = tiny_config();
  odd.width = 15;
  odd.heads = 3;
  odd.inner = 7;
  odd.positions = Positions::learned;
  odd.tied_embeddings = false;
  odd.encoder_layers = 1;
  configs.push_back(odd);
  for (const ModelConfig& config : configs) {
    Subject fast(cpu(), config), plain(make_reference_backend(), config);
    const Batch batch = random_batch(config, {5, 9, 7, 2}, 3);
    kernels::LossSums a, b;
    CHECK(relative_distance(fast.gradient(batch, 0.1f, {}, &a), plain.gradient(batch, 0.1f, {}, &b)) < 1e-5);
    CHECK(a.loss == doctest::Approx(b.loss).epsilon(1e-6));
    CHECK(a.nll == doctest::Approx(b.nll).epsilon(1e-6));
    CHECK(a.tokens == b.tokens);
    CHECK(a.correct == b.correct);
  }
}

namespace {

// Holds a slot to what it says of its gradients.
class WholeSink final : public kernels::GradientSink {
 public:
  explicit WholeSink(const ParameterTable& table) : table_(table), folded_(table.all().size()) {}
  void fold(int64_t offset, kernels::ConstView gradient) override {
    CHECK(offset + gradient.size() <= whole_from_);  // nothing comes that was said to be whole
    for (size_t i = 0; i < folded_.size(); ++i) {
      const Parameter& p = table_.all()[i];
      folded_[i] = folded_[i] || (p.offset < offset + gradient.size() && offset < p.offset + p.rows * p.cols);
    }
  }
  void whole_from(int64_t offset) override {
    CHECK(offset < whole_from_);
    whole_from_ = offset;
    ++said_;
    for (size_t i = 0; i < folded_.size(); ++i)
      if (table_.all()[i].offset >= offset) CHECK_MESSAGE(folded_[i], table_.all()[i].name);
  }
  int said() const { return said_; }
  int64_t whole_from() const { return whole_from_; }

 private:
  const ParameterTable& table_;
  std::vector<bool> folded_;
  int64_t whole_from_ = std::numeric_limits<int64_t>::max();
  int said_ = 0;
};

}  // namespace

TEST_CASE("a slot says layer by layer which gradients are whole, and folds none of them again") {
  std::vector<ModelConfig> configs = families();
  for (const ModelConfig& tied : families()) {
    configs.push_back(tied);
    configs.back().tied_embeddings = false;
  }
  for (const ModelConfig& config : configs) {
    Subject subject(cpu(), config);
    const Batch batch = random_batch(config, {5, 9, 7}, 3);
    kernels::Arena arena(subject.backend->allocate(subject.model->arena_bytes(3, 64, true)));
    WholeSink sink(subject.model->parameters());
    subject.model->train_slot(*subject.stream, arena, subject.state.view(), batch, {}, 0.1f, sink);
    const auto layers = config.decoder_layers +
                        (config.family == Family::encoder_decoder ? config.encoder_layers : int64_t{0});
    CHECK(sink.said() == layers + 1 + (config.tied_embeddings ? 0 : 1));
    CHECK(sink.whole_from() < subject.model->parameters().elements() / 2);
  }
}

TEST_CASE("in bf16 losses and gradients stay near those in f32") {
  for (ModelConfig config : families()) {
    Subject exact(cpu(), config);
    config.compute = kernels::DType::bf16;
    Subject coarse(cpu(), config);
    const Batch batch = random_batch(config, {8, 12, 11}, 3);
    kernels::LossSums a, b;
    const auto coarse_gradient = coarse.gradient(batch, 0.1f, {}, &a);
    CHECK(relative_distance(coarse_gradient, exact.gradient(batch, 0.1f, {}, &b)) < 0.05);
    CHECK(a.loss == doctest::Approx(b.loss).epsilon(2e-3));
  }
}

TEST_CASE("evaluation and training see the same loss without dropout") {
  for (ModelConfig config : families())
    for (auto type : {kernels::DType::f32, kernels::DType::bf16}) {
      config.compute = type;
      Subject subject(cpu(), config);
      const Batch batch = random_batch(config, {4, 6, 7}, 9);
      kernels::LossSums trained;
      subject.gradient(batch, 0.1f, {}, &trained);
      const auto evaluated = subject.evaluate(batch, 0.1f);
      CHECK(evaluated.loss == doctest::Approx(trained.loss).epsilon(1e-6));
      CHECK(evaluated.correct == trained.correct);
    }
}

TEST_CASE("more padding changes neither the loss nor any gradient") {
  for (const ModelConfig& config : families()) {
    Subject subject(cpu(), config);
    kernels::LossSums tight, loose;
    const auto a = subject.gradient(random_batch(config, {4, 7, 6, 0}, 3), 0.1f, {}, &tight);
    const auto b = subject.gradient(random_batch(config, {4, 7, 6, 9}, 3), 0.1f, {}, &loose);
    CHECK(tight.loss == doctest::Approx(loose.loss).epsilon(1e-6));
    CHECK(tight.tokens == loose.tokens);
    CHECK(relative_distance(a, b) < 1e-5);
  }
}

TEST_CASE("what stands in padded places has no influence") {
  for (const ModelConfig& config : families()) {
    Subject subject(cpu(), config);
    Batch batch = random_batch(config, {4, 7, 6, 3}, 3);
    const auto before = subject.gradient(batch, 0.1f);
    const auto scribble = [&](TokenMatrix& tokens) {
      for (int32_t b = 0; b < tokens.rows; ++b)
        for (int32_t t = tokens.lengths[size_t(b)]; t < tokens.cols; ++t)
          tokens.ids[size_t(b * tokens.cols + t)] = 4 + (b + t) % 20;
    };
    scribble(batch.target_in);
    if (config.family == Family::encoder_decoder) scribble(batch.source);
    CHECK(relative_distance(subject.gradient(batch, 0.1f), before) < 1e-6);
  }
}

TEST_CASE("a sentence's loss does not depend on the sentences beside it") {
  const ModelConfig config = tiny_config();
  Subject subject(cpu(), config);
  const Batch batch = random_batch(config, {3, 7, 6}, 3);
  double sum = 0;
  for (size_t b = 0; b < 3; ++b) {
    const auto cut = [&](const TokenMatrix& m) {
      const auto first = m.ids.begin() + std::ptrdiff_t(b) * m.cols;
      return TokenMatrix{1, m.lengths[b], {first, first + m.lengths[b]}, {m.lengths[b]}};
    };
    Batch one;
    one.source = cut(batch.source);
    one.target_in = cut(batch.target_in);
    const auto first = batch.target_out.begin() + std::ptrdiff_t(b) * batch.target_in.cols;
    one.target_out.assign(first, first + batch.target_in.lengths[b]);
    one.target_tokens = batch.target_in.lengths[b];
    sum += subject.evaluate(one, 0.1f).loss;
  }
  CHECK(subject.evaluate(batch, 0.1f).loss == doctest::Approx(sum).epsilon(1e-6));
}

TEST_CASE("dropout is a function of seed, step and slot") {
  for (const ModelConfig& plain : families()) {
    const ModelConfig config = with_dropout(plain);
    Subject subject(cpu(), config);
    const Batch batch = random_batch(config, {4, 7, 6}, 3);
    const auto a = subject.gradient(batch, 0.1f, {1, 2, 3});
    CHECK(subject.gradient(batch, 0.1f, {1, 2, 3}) == a);
    for (const SlotKey& other : {SlotKey{2, 2, 3}, SlotKey{1, 3, 3}, SlotKey{1, 2, 4}})
      CHECK(relative_distance(subject.gradient(batch, 0.1f, other), a) > 0.05);
    Subject dry(cpu(), plain);
    CHECK(subject.evaluate(batch, 0.1f).loss == doctest::Approx(dry.evaluate(batch, 0.1f).loss));
  }
}

TEST_CASE("the backward pass draws the masks of the forward pass again") {
  // The derivative along a direction, with the masks held fixed by their key.
  for (const ModelConfig& plain : families()) {
    ModelConfig config = with_dropout(plain);
    config.activation = kernels::Activation::gelu;
    Subject subject(cpu(), config);
    const Batch batch = random_batch(config, {3, 6, 5}, 4);
    const auto gradient = subject.gradient(batch, 0.1f, {1, 2, 3});
    double analytic = 0, numeric = 0, norm = 0;
    for (float g : gradient) norm += double(g) * double(g);
    const auto loss_at = [&](double step) {
      TrainState& state = subject.state;
      std::vector<float> before(state.weight_data(), state.weight_data() + state.elements);
      for (size_t i = 0; i < gradient.size(); ++i)
        state.weight_data()[i] += float(step * double(gradient[i]) / std::sqrt(norm));
      pack_state(*subject.backend, *subject.stream, *subject.model, state);
      kernels::LossSums sums;
      subject.gradient(batch, 0.1f, {1, 2, 3}, &sums);
      std::copy(before.begin(), before.end(), state.weight_data());
      return sums.loss;
    };
    analytic = std::sqrt(norm);
    numeric = (8 * (loss_at(0.01) - loss_at(-0.01)) - (loss_at(0.02) - loss_at(-0.02))) / 0.12;
    CHECK(numeric == doctest::Approx(analytic).epsilon(2e-3));
  }
}

TEST_CASE("an empty slot is the identity") {
  Subject subject(cpu(), tiny_config());
  kernels::LossSums sums;
  const auto gradient = subject.gradient(Batch{}, 0.1f, {}, &sums);
  CHECK(sums.tokens == 0);
  CHECK(sums.loss == 0);
  for (float g : gradient) CHECK(g == 0);
}

TEST_CASE("a slot takes exactly the memory that was planned") {
  for (const ModelConfig& config : families())
    for (bool training : {true, false}) {
      Subject subject(cpu(), config);
      const Batch batch = random_batch(config, {4, 8, 8}, 3);
      const size_t bytes = subject.model->arena_bytes(4, 32, training);
      kernels::Arena arena(subject.backend->allocate(bytes));
      kernels::GatherSink sink(subject.model->parameters().elements());
      if (training)
        subject.model->train_slot(*subject.stream, arena, subject.state.view(), batch, {}, 0.1f, sink);
      else
        subject.model->evaluate_slot(*subject.stream, arena, subject.state.view(), batch, 0.1f);
      CHECK(arena.peak() == bytes);
      CHECK(arena.used() == 0);
    }
}

TEST_CASE("an arena that is too small is an error that names the sizes") {
  Subject subject(cpu(), tiny_config());
  kernels::Arena arena(subject.backend->allocate(1000));
  CHECK_THROWS_AS(subject.model->evaluate_slot(*subject.stream, arena, subject.state.view(),
                                               random_batch(tiny_config(), {}, 3), 0),
                  Error);
  kernels::Arena small(kernels::allocate_host(100));
  CHECK_THROWS_WITH_AS(small.take(kernels::DType::f32, 4, 8),
                       doctest::Contains("4 rows of 8 f32 take 128 bytes, but 0 of 100 are taken; 2 rows"),
                       Error);
}

TEST_CASE("a batch that contradicts itself or the model is a bug that is caught") {
  Subject subject(cpu(), tiny_config());
  Batch batch = random_batch(tiny_config(), {3, 5, 4, 40}, 3);  // longer than the model's 32
  CHECK_THROWS_AS(subject.model->arena_bytes(0, 5, true), CheckFailure);
  kernels::Arena arena(subject.backend->allocate(1 << 20));
  CHECK_THROWS_AS(subject.model->evaluate_slot(*subject.stream, arena, subject.state.view(), batch, 0),
                  CheckFailure);
  batch = random_batch(tiny_config(), {}, 3);
  batch.target_in.ids.pop_back();
  CHECK_THROWS_AS(subject.model->evaluate_slot(*subject.stream, arena, subject.state.view(), batch, 0),
                  CheckFailure);
}
