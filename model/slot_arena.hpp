// The arena that a thread keeps from slot to slot, or from batch to batch, and that grows with the largest.
#pragma once

#include <cstddef>
#include <optional>

#include "kernels/backend.hpp"

namespace troupe::model {

// `arena` with room for `bytes`, at the same address whether it was large enough or has been replaced. One
// that is too small goes first: never are both held. Throws Error(out_of_memory), which leaves none.
inline kernels::Arena& with_room(std::optional<kernels::Arena>& arena, size_t bytes,
                                 kernels::Backend& backend) {
  if (!arena || arena->capacity() < bytes) {
    arena.reset();
    arena.emplace(backend.allocate(bytes));
  }
  return *arena;
}

}  // namespace troupe::model
