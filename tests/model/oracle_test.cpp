// Fifty training steps beside PyTorch's, from the same weights and batches (made by tests/oracle/train.py's
// rules).
#include <algorithm>
#include <cmath>
#include <fstream>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "kernels/base/random.hpp"
#include "kernels/cpu/backend.hpp"
#include "model/parameters.hpp"
#include "model/step.hpp"
#include "tests/model/support.hpp"

using namespace troupe;
using namespace troupe::model;
using namespace troupe::testing;

namespace {

constexpr int32_t kRows = 6;
constexpr uint64_t kFirstWord = 4, kVocabulary = 61;

ModelConfig encoder_decoder(NormPlacement norm) {
  ModelConfig c = tiny_config();
  c.vocabulary = kVocabulary;
  c.width = 32;
  c.inner = 48;
  c.heads = 4;
  c.max_length = 16;
  c.norm = norm;
  return c;
}

ModelConfig rotary() {
  ModelConfig c = encoder_decoder(NormPlacement::pre);
  c.norm_kind = kernels::NormKind::rms;
  c.positions = Positions::rotary;
  return c;
}

ModelConfig language_model() {
  ModelConfig c = gpt2_config(2, 32, 4, kVocabulary, 16);
  c.inner = 48;
  c.dropout = 0;
  c.compute = kernels::DType::f32;
  return c;
}

OptimizerConfig optimizer() {
  OptimizerConfig c;
  c.epsilon = 1e-6f;
  c.weight_decay = 0.1f;
  c.clip_norm = 0.5f;
  c.schedule.peak = 5e-3;
  c.schedule.warmup_steps = 10;
  return c;
}

void set_initial_weights(const Model& model, TrainState& state) {
  for (size_t index = 0; index < model.parameters().all().size(); ++index) {
    const Parameter& p = model.parameters().all()[index];
    for (int64_t i = 0; i < p.rows * p.cols; ++i) {
      const double u = double(mix64(index, uint64_t(i)) >> 40) * 0x1p-23 - 1;
      state.weight_data()[p.offset + i] = float(0.15 * u + (p.kind == ParameterKind::norm ? 1.0 : 0.0));
    }
  }
}

TokenMatrix padded(const std::vector<std::vector<int32_t>>& rows, int32_t filler) {
  TokenMatrix matrix{int32_t(rows.size()), 0, {}, {}};
  for (const auto& row : rows) matrix.cols = std::max(matrix.cols, int32_t(row.size()));
  for (auto row : rows) {
    matrix.lengths.push_back(int32_t(row.size()));
    row.resize(size_t(matrix.cols), filler);
    matrix.ids.insert(matrix.ids.end(), row.begin(), row.end());
  }
  return matrix;
}

Batch oracle_batch(const ModelConfig& config, int64_t step, uint32_t slot) {
  std::vector<std::vector<int32_t>> source, target_in, target_out;
  for (uint64_t row = 0; row < kRows; ++row) {
    const uint64_t key = mix64(mix64(uint64_t(step), slot), row);
    std::vector<int32_t> words(2 + mix64(key, 1000) % 8);
    for (size_t i = 0; i < words.size(); ++i)
      words[i] = int32_t(kFirstWord + mix64(key, i) % (kVocabulary - kFirstWord));
    source.push_back(words);
    source.back().push_back(config.eos_id);
    if (config.family == Family::encoder_decoder) std::reverse(words.begin(), words.end());
    target_out.push_back(words);
    target_out.back().push_back(config.eos_id);
    words.insert(words.begin(), config.bos_id);
    target_in.push_back(words);
  }
  Batch batch;
  if (config.family == Family::encoder_decoder) batch.source = padded(source, config.pad_id);
  batch.target_in = padded(target_in, config.pad_id);
  batch.target_out = padded(target_out, Batch::kIgnore).ids;
  for (int32_t length : batch.target_in.lengths) batch.target_tokens += length;
  return batch;
}

std::vector<uint8_t> from_base64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<uint8_t> bytes;
  uint32_t buffer = 0;
  int bits = 0;
  for (char c : text) {
    if (c == '=') break;
    buffer = (buffer << 6) | uint32_t(digits.find(c));
    if ((bits += 6) < 8) continue;
    bytes.push_back(uint8_t(buffer >> (bits -= 8)));
  }
  return bytes;
}

// ||ours - PyTorch's|| / ||PyTorch's|| over all final parameters.
double distance(const Model& model, const TrainState& state, const nlohmann::json& parameters) {
  double squares = 0, reference = 0;
  REQUIRE(parameters.size() == model.parameters().all().size());
  for (size_t index = 0; index < parameters.size(); ++index) {
    const Parameter& p = model.parameters().all()[index];
    REQUIRE(parameters[index]["name"] == p.name);
    const auto bytes = from_base64(parameters[index]["units"].get<std::string>());
    REQUIRE(bytes.size() == size_t(2 * p.rows * p.cols));
    for (int64_t i = 0; i < p.rows * p.cols; ++i) {
      const auto unit = int16_t(uint16_t(bytes[size_t(2 * i)] | (bytes[size_t(2 * i + 1)] << 8)));
      const double value = double(unit) * parameters[index]["scale"].get<double>();
      squares += std::pow(double(state.weight_data()[p.offset + i]) - value, 2);
      reference += value * value;
    }
  }
  return std::sqrt(squares / reference);
}

void follow_pytorch(kernels::Backend& backend, const ModelConfig& config, const char* file) {
  std::ifstream in(std::string(TROUPE_SOURCE_DIR) + "/tests/oracle/" + file);
  REQUIRE(in.good());
  const auto oracle = nlohmann::json::parse(in);
  const auto model = make_model(config);
  const auto stream = backend.create_stream();
  TrainState state = initial_state(backend, *stream, *model, 1);
  set_initial_weights(*model, state);
  pack_state(backend, *stream, *model, state);
  StepOptions options;
  options.slots = 2;
  options.optimizer = optimizer();
  double worst_loss = 0, worst_norm = 0;
  train_one_process(
      backend, *model, options, [&](int64_t step, uint32_t slot) { return oracle_batch(config, step, slot); },
      50, state,
      [&](const StepResult& result) {
        const double loss = oracle["losses"][size_t(result.plan.step)],
                     norm = oracle["gradient_norms"][size_t(result.plan.step)];
        worst_loss = std::max(worst_loss, std::abs(result.loss.mean_loss() / loss - 1));
        worst_norm = std::max(worst_norm, std::abs(result.plan.gradient_norm / norm - 1));
      });
  const double parameters = distance(*model, state, oracle["parameters"]);
  MESSAGE(std::string(file) << ": loss within " << worst_loss << ", gradient norm " << worst_norm
                            << ", parameters " << parameters);
  CHECK(state.updates == 50);
  CHECK(worst_loss < 1e-4);
  CHECK(worst_norm < 1e-3);
  CHECK(parameters < 1e-3);
}

void follow_all(kernels::Backend& backend) {
  follow_pytorch(backend, encoder_decoder(NormPlacement::pre), "encoder_decoder_pre.json");
  follow_pytorch(backend, encoder_decoder(NormPlacement::post), "encoder_decoder_post.json");
  follow_pytorch(backend, rotary(), "encoder_decoder_rotary.json");
  follow_pytorch(backend, language_model(), "gpt2.json");
}

}  // namespace

TEST_CASE("fifty steps follow PyTorch, on plain loops") {
  follow_all(*make_reference_backend());
}

TEST_CASE("fifty steps follow PyTorch, on the CPU backend") {
  follow_all(*kernels::make_cpu_backend());
}
