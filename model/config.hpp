// What a model is: the settings that fix its shapes and its numbers. A plain value; validate() says what is
// wrong with it in the user's words. Read from a job file by actors/, stored in checkpoints.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/backend.hpp"

namespace troupe::model {

enum class Family : uint8_t { encoder_decoder = 1, decoder };
enum class NormPlacement : uint8_t { pre = 1, post };
// sinusoidal and learned ones are added to embeddings; rotary ones turn the queries and keys of
// self-attention (Su et al. 2021).
enum class Positions : uint8_t { sinusoidal = 1, learned, rotary };

// How products are made: in the compute type; those of layers' linear operations, but for the gradients of
// weights, in fp8 (kernels/backend.hpp, Packing::fp8); or all but attention's from f32 in TF32
// (kernels/cuda).
enum class Products : uint8_t { compute = 1, fp8, tf32 };

inline constexpr int64_t kLayersMax = 64;  // of encoder and decoder each; bounds the saved views of a slot

struct ModelConfig {
  Family family = Family::encoder_decoder;
  int64_t vocabulary = 8192;
  int64_t width = 256;         // C
  int64_t inner = 1024;        // F of the feed-forward layers
  int64_t heads = 8;           // H, divides width
  int64_t encoder_layers = 4;  // 0 for decoder-only
  int64_t decoder_layers = 4;
  int64_t max_length = 256;  // tokens of a sequence, T
  NormPlacement norm = NormPlacement::pre;
  kernels::NormKind norm_kind = kernels::NormKind::layer;
  Positions positions = Positions::sinusoidal;
  kernels::Activation activation = kernels::Activation::relu;
  bool scale_embedding = true;  // by sqrt(width), as Vaswani et al. 2017; GPT-2 does not
  float dropout = 0.1f;         // on embeddings and on each sublayer's output
  float attention_dropout = 0.0f;
  float activation_dropout = 0.0f;
  kernels::DType compute = kernels::DType::bf16;  // of activations and products; masters stay f32
  Products products = Products::compute;
  int32_t pad_id = 0, unk_id = 1, bos_id = 2, eos_id = 3;
  // Source embedding, target embedding and output projection are one matrix (Press & Wolf 2017).
  bool tied_embeddings = true;

  bool operator==(const ModelConfig&) const = default;
};

// Throws Error(usage) naming the setting, its value and what would be right.
void validate(const ModelConfig& config);

// GPT-2's layout (Radford et al. 2019): pre-norm, learned positions, GELU, no embedding scale.
ModelConfig gpt2_config(int64_t layers, int64_t width, int64_t heads, int64_t vocabulary, int64_t max_length);

}  // namespace troupe::model
