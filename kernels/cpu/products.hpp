// Matrix products by oneDNN, one thread each. Keeps dnnl.hpp out of every other file.
#pragma once

#include <string>

#include "kernels/cpu/backend.hpp"

namespace troupe::kernels {

// Holds oneDNN to `level` for the whole process. oneDNN fixes its level at first use, so all backends of a
// process share one: throws Error(device) when it is already fixed at another.
void limit_onednn(IsaLevel level);
std::string onednn_version();  // "2.6.3"

}  // namespace troupe::kernels
