// What would fit where a model or a slot does not: for errors that say so. From shapes alone, without memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "model/model.hpp"

namespace troupe::model {

// The most tokens, at most `tokens_max`, that a pack may have (prepare's --pack-tokens) for its slot's
// activations, gradients included, to take at most `bytes`; 0 when not one token's would.
int64_t tokens_that_fit(const Model& model, size_t bytes, int64_t tokens_max);

// The most parameters whose state takes at most `bytes`, when `parameters` take `state_bytes`.
int64_t parameters_that_fit(size_t bytes, int64_t parameters, size_t state_bytes);

}  // namespace troupe::model
