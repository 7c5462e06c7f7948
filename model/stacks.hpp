// The encoder and the decoder as wholes: embeddings, layers, final norm, forward and backward. The
// translation model is encoder and decoder; the language model is a decoder without memory. See
// model/layers.hpp for passes, arenas and sinks.
#pragma once

#include <array>

#include "model/layers.hpp"

namespace troupe::model {

struct EncoderSaved {
  NormSaved first;
  std::array<EncoderLayerSaved, kLayersMax> layers;
};
struct DecoderSaved {
  NormSaved first;
  std::array<DecoderLayerSaved, kLayersMax> layers;
};

Tokens tokens_of(const TokenMatrix& matrix);

// What embeddings are multiplied by.
float embedding_scale(const ModelConfig& config);

// The norm that follows layer `index` in pre-norm: that of the next layer, or the final one. Post-norm has no
// use for it and gets the last layer's own.
const NormParameters& norm_following(const std::vector<EncoderLayerParameters>& layers,
                                     const std::optional<NormParameters>& final_norm, size_t index);
const NormParameters& norm_following(const std::vector<DecoderLayerParameters>& layers,
                                     const std::optional<NormParameters>& final_norm, size_t index);

// The encoder's output (M, C) compute and what masks it. Views live in the pass's arena; `source` outlives
// them.
Memory encoder_forward(Pass& pass, const Model& model, const TokenMatrix& source, EncoderSaved& saved);
// `dmemory` (M, C) f32: gradient of the output. Folds all of the encoder's parameters and the source
// embedding.
void encoder_backward(Pass& pass, const Model& model, const TokenMatrix& source, const EncoderSaved& saved,
                      kernels::ConstView dmemory);

// The decoder's output (M, C) compute, normed and ready for the output projection. `memory` null: language
// model.
kernels::View decoder_forward(Pass& pass, const Model& model, const TokenMatrix& target, const Memory* memory,
                              DecoderSaved& saved);
// gradient.input holds the gradient of the output on entry. `dmemory` (M_source, C) f32 is overwritten, or
// empty.
void decoder_backward(Pass& pass, const Model& model, const TokenMatrix& target, const Memory* memory,
                      const DecoderSaved& saved, FlowGradient& gradient, kernels::View dmemory);

}  // namespace troupe::model
