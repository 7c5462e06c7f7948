// Where each parameter of a Transformer lives: indices into ParameterTable::all(), by layer and role.
// Training, generation, export and tests reach weights through these, never by name. Plain values,
// immutable once made.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "model/config.hpp"
#include "model/model.hpp"

namespace troupe::model {

struct LinearParameters {
  size_t weight = 0;  // (N, K)
  size_t bias = 0;    // (1, N)
};

struct NormParameters {
  size_t gamma = 0;            // (1, C)
  std::optional<size_t> beta;  // (1, C), layer norm only
};

struct SelfAttentionParameters {
  LinearParameters query_key_value;  // (3C, C): rows of q, then k, then v; heads are contiguous column ranges
  LinearParameters output;           // (C, C)
};

struct CrossAttentionParameters {
  LinearParameters query;      // (C, C), of the decoder's stream
  LinearParameters key_value;  // (2C, C), of the encoder's output: rows of k, then v
  LinearParameters output;     // (C, C)
};

struct FeedForwardParameters {
  LinearParameters inner;  // (F, C)
  LinearParameters outer;  // (C, F)
};

// A norm belongs to the sublayer after its name: it comes before it (pre-norm) or after its residual sum
// (post-norm).
struct EncoderLayerParameters {
  NormParameters self_attention_norm;
  SelfAttentionParameters self_attention;
  NormParameters feed_forward_norm;
  FeedForwardParameters feed_forward;
};

struct DecoderLayerParameters {
  NormParameters self_attention_norm;
  SelfAttentionParameters self_attention;
  std::optional<NormParameters> cross_attention_norm;  // decoder-only has no cross-attention
  std::optional<CrossAttentionParameters> cross_attention;
  NormParameters feed_forward_norm;
  FeedForwardParameters feed_forward;
};

struct TransformerParameters {
  size_t source_embedding = 0;  // (V, C); the same index as the target's when tied or decoder-only
  size_t target_embedding = 0;
  size_t output = 0;                       // (V, C); the same index when tied; no bias
  std::optional<size_t> source_positions;  // (T, C), learned positions only
  std::optional<size_t> target_positions;
  std::vector<EncoderLayerParameters> encoder;
  std::optional<NormParameters> encoder_norm;  // the final norm, pre-norm only
  std::vector<DecoderLayerParameters> decoder;
  std::optional<NormParameters> decoder_norm;
};

// Adds all parameters of `config` to an empty table in their fixed order and says where they are.
TransformerParameters describe_parameters(const ModelConfig& config, ParameterTable& table);

}  // namespace troupe::model
