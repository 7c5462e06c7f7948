#include <string_view>

#include "kernels/cpu/backend.hpp"

namespace troupe::kernels {

std::string_view to_string(IsaLevel level) {
  switch (level) {
    case IsaLevel::v2:
      return "v2";
    case IsaLevel::v3:
      return "v3";
    case IsaLevel::v4:
      return "v4";
  }
  return "unknown";
}

std::optional<IsaLevel> parse_isa_level(std::string_view text) {
  for (const IsaLevel level : {IsaLevel::v2, IsaLevel::v3, IsaLevel::v4})
    if (text == to_string(level)) return level;
  return std::nullopt;
}

IsaLevel best_isa_level() {
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("x86-64-v3");
#if defined(TROUPE_EMULATE_AVX512)
  const bool v4 = v3;
#else
  const bool v4 = v3 && __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16") &&
                  __builtin_cpu_supports("avx512vnni");
#endif
  return v4 ? IsaLevel::v4 : v3 ? IsaLevel::v3 : IsaLevel::v2;
}

}  // namespace troupe::kernels
