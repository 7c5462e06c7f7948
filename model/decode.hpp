// The decoder over a cache: the next tokens of many sequences in one pass, and the log probabilities of what
// may follow. First the prompt (one token, <s>, for translation), one row a sequence; then a token at a time,
// one row a place of the cache. The same mathematics as decoder_forward.
#pragma once

#include <cstdint>
#include <span>

#include "model/decoder_cache.hpp"
#include "model/layers.hpp"

namespace troupe::model {

// Bytes an arena needs for decode_* with these shapes; the views they take live until the arena is reset.
size_t decode_arena_bytes(const ModelConfig& config, int64_t sequences, int64_t beam, int64_t prompt_tokens,
                          int64_t width);

// The `width` best next tokens of each row.
struct NextTokens {
  kernels::View log_probabilities;  // (rows, width) f32, best first
  kernels::View ids;                // (rows, width) i32
};

// ids (sequences, length): each sequence's keys and values go to its first place. REQUIRES an empty cache.
NextTokens decode_prompt(Pass& pass, const Model& model, std::span<const int32_t> ids, int64_t length,
                         int64_t width, DecoderCache& cache);
// ids (places): one token of each place; rows are places.
NextTokens decode_step(Pass& pass, const Model& model, std::span<const int32_t> ids, int64_t width,
                       DecoderCache& cache);

}  // namespace troupe::model
