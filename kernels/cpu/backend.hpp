// The CPU backend. Our own loops are compiled for several instruction-set levels; one is chosen here, for the
// whole process. Products go to oneDNN with one thread a primitive.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "kernels/backend.hpp"

namespace troupe::kernels {

enum class IsaLevel : uint8_t { v2 = 2, v3 = 3, v4 = 4 };  // x86-64-v2, -v3, -v4 with AVX512-BF16
std::string_view to_string(IsaLevel level);
IsaLevel best_isa_level();                                       // of this machine
std::optional<IsaLevel> parse_isa_level(std::string_view text);  // "v2", "v3", "v4"

// Throws Error(device) when this machine lacks `level`. oneDNN is held to the same level.
std::unique_ptr<Backend> make_cpu_backend(IsaLevel level = best_isa_level());

}  // namespace troupe::kernels
