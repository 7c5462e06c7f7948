#include "model/parameters.hpp"

#include <utility>

namespace troupe::model {

size_t ParameterTable::add(std::string name, ParameterKind kind, int64_t rows, int64_t cols, bool packed) {
  for (const Parameter& p : parameters_) TROUPE_CHECK(p.name != name, "two parameters are called {}", name);
  TROUPE_CHECK(rows > 0 && cols > 0, "{} has shape ({}, {})", name, rows, cols);
  Parameter parameter;
  parameter.kind = kind;
  parameter.rows = rows;
  parameter.cols = cols;
  parameter.offset = layout_.append(rows * cols, kind == ParameterKind::embedding ? cols : rows * cols);
  parameter.decays = kind == ParameterKind::embedding || kind == ParameterKind::matrix;
  parameter.packed = packed || kind == ParameterKind::matrix;
  parameter.name = std::move(name);
  parameters_.push_back(std::move(parameter));
  return parameters_.size() - 1;
}

size_t ParameterTable::index(const std::string& name) const {
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (parameters_[i].name == name) return i;
  TROUPE_CHECK(false, "no parameter is called {}", name);
  return 0;
}

namespace {

// Adds parameters under a dotted prefix.
struct Describer {
  const ModelConfig& config;
  ParameterTable& table;

  LinearParameters linear(const std::string& name, int64_t outputs, int64_t inputs) {
    LinearParameters p;
    p.weight = table.add(name + ".weight", ParameterKind::matrix, outputs, inputs);
    p.bias = table.add(name + ".bias", ParameterKind::bias, 1, outputs);
    return p;
  }

  NormParameters norm(const std::string& name) {
    NormParameters p;
    p.gamma = table.add(name + ".weight", ParameterKind::norm, 1, config.width);
    if (config.norm_kind == kernels::NormKind::layer)
      p.beta = table.add(name + ".bias", ParameterKind::bias, 1, config.width);
    return p;
  }

  SelfAttentionParameters self_attention(const std::string& name) {
    SelfAttentionParameters p;
    p.query_key_value = linear(name + ".query_key_value", 3 * config.width, config.width);
    p.output = linear(name + ".output", config.width, config.width);
    return p;
  }

  CrossAttentionParameters cross_attention(const std::string& name) {
    CrossAttentionParameters p;
    p.query = linear(name + ".query", config.width, config.width);
    p.key_value = linear(name + ".key_value", 2 * config.width, config.width);
    p.output = linear(name + ".output", config.width, config.width);
    return p;
  }

  FeedForwardParameters feed_forward(const std::string& name) {
    FeedForwardParameters p;
    p.inner = linear(name + ".inner", config.inner, config.width);
    p.outer = linear(name + ".outer", config.width, config.inner);
    return p;
  }

  EncoderLayerParameters encoder_layer(const std::string& name) {
    EncoderLayerParameters p;
    p.self_attention_norm = norm(name + ".self_attention.norm");
    p.self_attention = self_attention(name + ".self_attention");
    p.feed_forward_norm = norm(name + ".feed_forward.norm");
    p.feed_forward = feed_forward(name + ".feed_forward");
    return p;
  }

  DecoderLayerParameters decoder_layer(const std::string& name) {
    DecoderLayerParameters p;
    p.self_attention_norm = norm(name + ".self_attention.norm");
    p.self_attention = self_attention(name + ".self_attention");
    if (config.family == Family::encoder_decoder) {
      p.cross_attention_norm = norm(name + ".cross_attention.norm");
      p.cross_attention = cross_attention(name + ".cross_attention");
    }
    p.feed_forward_norm = norm(name + ".feed_forward.norm");
    p.feed_forward = feed_forward(name + ".feed_forward");
    return p;
  }

  size_t embedding(const std::string& name, int64_t rows, bool packed) {
    return table.add(name, ParameterKind::embedding, rows, config.width, packed);
  }
};

}  // namespace

TransformerParameters describe_parameters(const ModelConfig& config, ParameterTable& table) {
  TROUPE_CHECK(table.all().empty());
  Describer describe{config, table};
  TransformerParameters p;
  const bool translates = config.family == Family::encoder_decoder;
  const bool learned = config.positions == Positions::learned;
  if (!translates || config.tied_embeddings) {  // its gradient is whole last, so it is first
    p.target_embedding = describe.embedding("embedding.weight", config.vocabulary, config.tied_embeddings);
    p.source_embedding = p.target_embedding;
  } else {
    p.source_embedding = describe.embedding("source_embedding.weight", config.vocabulary, false);
  }
  if (translates && learned)
    p.source_positions = describe.embedding("source_positions.weight", config.max_length, false);
  for (int64_t i = 0; i < config.encoder_layers; ++i)
    p.encoder.push_back(describe.encoder_layer(fmt::format("encoder.{}", i)));
  if (translates && config.norm == NormPlacement::pre) p.encoder_norm = describe.norm("encoder.norm");

  if (translates && !config.tied_embeddings)
    p.target_embedding = describe.embedding("target_embedding.weight", config.vocabulary, false);
  if (learned)
    p.target_positions = describe.embedding(translates ? "target_positions.weight" : "positions.weight",
                                            config.max_length, false);
  for (int64_t i = 0; i < config.decoder_layers; ++i)
    p.decoder.push_back(describe.decoder_layer(fmt::format("decoder.{}", i)));
  if (config.norm == NormPlacement::pre) p.decoder_norm = describe.norm("decoder.norm");
  // The rows of the output projection jump like those of an embedding, so each has blocks of its own.
  p.output = config.tied_embeddings ? p.target_embedding
                                    : describe.embedding("output.weight", config.vocabulary, true);
  return p;
}

}  // namespace troupe::model
