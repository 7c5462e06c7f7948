// The program's version, as `troupe --version`, checkpoints and links say it.
#pragma once

#include <string_view>

namespace troupe {
inline constexpr std::string_view kVersion = "0.1.0";
}
