#include "model/parameters.hpp"

#include <cmath>
#include <set>

#include <doctest/doctest.h>

#include "model/initialise.hpp"
#include "tests/model/support.hpp"

using namespace troupe;
using namespace troupe::model;
using namespace troupe::testing;

namespace {

std::vector<float> initial(const ModelConfig& config, uint64_t seed) {
  const auto model = make_model(config);
  std::vector<float> weights(size_t(model->parameters().elements()));
  initialise(*model, seed, weights.data());
  return weights;
}

struct Moments {
  double mean, deviation, largest;
};
Moments moments(const ParameterTable& table, const std::vector<float>& weights, const std::string& name) {
  const Parameter& p = table.all()[table.index(name)];
  Moments m{0, 0, 0};
  const int64_t count = p.rows * p.cols;
  for (int64_t i = p.offset; i < p.offset + count; ++i) {
    m.mean += double(weights[size_t(i)]) / double(count);
    m.deviation += double(weights[size_t(i)]) * double(weights[size_t(i)]) / double(count);
    m.largest = std::max(m.largest, std::abs(double(weights[size_t(i)])));
  }
  m.deviation = std::sqrt(m.deviation);
  return m;
}

}  // namespace

TEST_CASE("a model's parameters are those of its family, in the order of the forward pass") {
  const auto model = make_model(tiny_config());
  const auto& all = model->parameters().all();
  CHECK(all[0].name == "embedding.weight");
  CHECK(all[0].packed);
  CHECK(all[1].name == "encoder.0.self_attention.norm.weight");
  CHECK(all.back().name == "decoder.norm.bias");
  // 29*16 + encoder layers + decoder layers + two final norms
  const int64_t attention = 4 * 16 * 16 + 4 * 16, feed_forward = 2 * 16 * 24 + 24 + 16, norm = 32;
  CHECK(model->parameters().elements() == 29 * 16 + 2 * (attention + feed_forward + 2 * norm) +
                                              2 * (2 * attention + feed_forward + 3 * norm) + 2 * norm);

  ModelConfig untied = tiny_config();
  untied.tied_embeddings = false;
  untied.norm = NormPlacement::post;
  untied.positions = Positions::learned;
  std::set<std::string> names;
  const auto model2 = make_model(untied);
  for (const Parameter& p : model2->parameters().all()) names.insert(p.name);
  for (const char* name : {"source_embedding.weight", "target_embedding.weight", "output.weight",
                           "source_positions.weight", "target_positions.weight"})
    CHECK(names.contains(name));
  CHECK_FALSE(names.contains("encoder.norm.weight"));  // post-norm has no final norm

  ModelConfig rms = tiny_config();
  rms.norm_kind = kernels::NormKind::rms;
  const auto model3 = make_model(rms);
  CHECK(model3->parameters().all().back().name == "decoder.norm.weight");
  CHECK(model3->parameters().elements() == model->parameters().elements() - 12 * 16);  // no bias of a norm
}

TEST_CASE("weight decay spares biases and norms") {
  const auto model = make_model(tiny_config());
  for (const Parameter& p : model->parameters().all())
    CHECK(p.decays == (p.kind == ParameterKind::matrix || p.kind == ParameterKind::embedding));
}

TEST_CASE("initial weights depend on the seed and the parameter's name alone") {
  ModelConfig deep = tiny_config();
  deep.encoder_layers = 5;
  deep.norm = NormPlacement::post;
  const auto shallow_model = make_model(tiny_config()), deep_model = make_model(deep);
  const auto shallow_weights = initial(tiny_config(), 3), deep_weights = initial(deep, 3);
  CHECK(initial(tiny_config(), 4) != shallow_weights);
  for (const Parameter& p : shallow_model->parameters().all()) {
    if (p.name == "encoder.norm.weight" || p.name == "encoder.norm.bias" ||
        p.name.starts_with("decoder.norm"))
      continue;
    const Parameter& q = deep_model->parameters().all()[deep_model->parameters().index(p.name)];
    CAPTURE(p.name);
    CHECK(std::equal(shallow_weights.begin() + p.offset, shallow_weights.begin() + p.offset + p.rows * p.cols,
                     deep_weights.begin() + q.offset));
  }
}

TEST_CASE("initial weights have the spread that their layer wants") {
  ModelConfig c = tiny_config();
  c.vocabulary = 500;
  c.width = 64;
  c.inner = 256;
  c.heads = 4;
  const auto weights = initial(c, 1);
  const auto model = make_model(c);
  const ParameterTable& table = model->parameters();
  const auto embedding = moments(table, weights, "embedding.weight");
  CHECK(std::abs(embedding.mean) < 0.003);
  CHECK(embedding.deviation == doctest::Approx(0.125).epsilon(0.02));
  const double bound = std::sqrt(6.0 / 128);  // fused or not, a projection is (64, 64)
  for (const char* name :
       {"encoder.1.self_attention.query_key_value.weight", "decoder.0.cross_attention.key_value.weight",
        "decoder.0.cross_attention.query.weight"}) {
    const auto projection = moments(table, weights, name);
    CAPTURE(name);
    CHECK(projection.largest <= bound);
    CHECK(projection.deviation == doctest::Approx(bound / std::sqrt(3.0)).epsilon(0.02));
  }
  CHECK(moments(table, weights, "encoder.0.feed_forward.norm.weight").deviation == 1);
  CHECK(moments(table, weights, "encoder.0.feed_forward.inner.bias").largest == 0);

  const ModelConfig gpt = gpt2_config(8, 64, 4, 500, 32);
  const auto gpt_weights = initial(gpt, 1);
  const auto gpt_model = make_model(gpt);
  const ParameterTable& gpt_table = gpt_model->parameters();
  CHECK(moments(gpt_table, gpt_weights, "embedding.weight").deviation == doctest::Approx(0.02).epsilon(0.02));
  CHECK(moments(gpt_table, gpt_weights, "decoder.3.feed_forward.inner.weight").deviation ==
        doctest::Approx(0.02).epsilon(0.03));
  CHECK(moments(gpt_table, gpt_weights, "decoder.3.feed_forward.outer.weight").deviation ==
        doctest::Approx(0.005).epsilon(0.03));
}

TEST_CASE("sinusoidal positions are those of the paper") {
  const auto model = make_model(tiny_config());
  const auto rows = model->positions({}, Side::source, 3, 2);
  CHECK(rows.rows == 2);
  for (int64_t t = 0; t < 2; ++t)
    for (int64_t c = 0; c < 16; ++c) {
      const double angle = double(3 + t) / std::pow(10000.0, double(c / 2 * 2) / 16);
      CHECK(rows.as<float>()[t * 16 + c] ==
            doctest::Approx(c % 2 == 0 ? std::sin(angle) : std::cos(angle)).epsilon(1e-6));
    }
  CHECK_THROWS_AS(model->positions({}, Side::source, 31, 2), CheckFailure);
}

TEST_CASE("rotary positions turn queries and keys and are added to nothing") {
  ModelConfig config = tiny_config();
  CHECK(make_model(config)->turns({}, 3, 2).empty());
  config.positions = Positions::rotary;
  const auto model = make_model(config);
  CHECK(model->positions({}, Side::source, 3, 2).empty());
  const auto rows = model->turns({}, 3, 2);  // of heads of 8
  REQUIRE(rows.rows == 2);
  REQUIRE(rows.cols == 8);
  for (int64_t t = 0; t < 2; ++t)
    for (int64_t i = 0; i < 4; ++i) {
      const double angle = double(3 + t) / std::pow(10000.0, double(2 * i) / 8);
      CHECK(rows.as<float>()[t * 8 + i] == doctest::Approx(std::cos(angle)).epsilon(1e-6));
      CHECK(rows.as<float>()[t * 8 + 4 + i] == doctest::Approx(std::sin(angle)).epsilon(1e-6));
    }
  CHECK_THROWS_AS(model->turns({}, 31, 2), CheckFailure);
}

TEST_CASE("an impossible model is refused with the setting's name and what would be right") {
  struct Mistake {
    const char* message;
    void (*make)(ModelConfig&);
  };
  const Mistake mistakes[] = {
      {"model.heads is 3, which does not divide model.width 16; choose heads that do",
       [](ModelConfig& c) { c.heads = 3; }},
      {"model.heads is 0; it must be at least 1 and at most model.width",
       [](ModelConfig& c) { c.heads = 0; }},
      {"model.vocabulary is 3; it must be between 4 and 4194304", [](ModelConfig& c) { c.vocabulary = 3; }},
      {"model.width is 0; it must be between 1 and 65536", [](ModelConfig& c) { c.width = 0; }},
      {"model.inner is -5; it must be between 1 and 262144", [](ModelConfig& c) { c.inner = -5; }},
      {"model.encoder_layers is 65; it must be between 1 and 64",
       [](ModelConfig& c) { c.encoder_layers = 65; }},
      {"model.encoder_layers is 2; it must be 0 in a decoder-only model",
       [](ModelConfig& c) { c.family = Family::decoder; }},
      {"model.decoder_layers is 0; it must be between 1 and 64",
       [](ModelConfig& c) { c.decoder_layers = 0; }},
      {"model.max_length is 0; it must be between 1 and 65536", [](ModelConfig& c) { c.max_length = 0; }},
      {"model.dropout is 1; it must be at least 0 and below 1", [](ModelConfig& c) { c.dropout = 1; }},
      {"model.compute is i8; it must be f32 or bf16", [](ModelConfig& c) { c.compute = kernels::DType::i8; }},
      {"model.eos_id is 29; it must be a token id: at least 0 and below model.vocabulary",
       [](ModelConfig& c) { c.eos_id = 29; }},
      {"model.width is 15; it must be even with sinusoidal positions",
       [](ModelConfig& c) { c.width = 15, c.heads = 3; }},
      {"model.width / model.heads is 5; it must be even with rotary positions",
       [](ModelConfig& c) { c.width = 10, c.heads = 2, c.positions = Positions::rotary; }},
      {"model.products is fp8, which needs model.compute bf16, not f32",
       [](ModelConfig& c) { c.products = Products::fp8; }},
  };
  for (const Mistake& mistake : mistakes) {
    ModelConfig config = tiny_config();
    mistake.make(config);
    CHECK_THROWS_WITH_AS(make_model(config), mistake.message, Error);
  }
}
