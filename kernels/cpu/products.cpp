#include "kernels/cpu/products.hpp"

#include <oneapi/dnnl/dnnl.hpp>

namespace troupe::kernels {

namespace {

dnnl::cpu_isa onednn_isa(IsaLevel level) {
  switch (level) {
    case IsaLevel::v2:
      return dnnl::cpu_isa::sse41;
    case IsaLevel::v3:
      return dnnl::cpu_isa::avx2;
    case IsaLevel::v4:
      return dnnl::cpu_isa::avx512_core_bf16;
  }
  return dnnl::cpu_isa::sse41;
}

}  // namespace

void limit_onednn(IsaLevel level) {
  dnnl::set_max_cpu_isa(onednn_isa(level));  // fails once oneDNN has been used: the next line tells
  if (dnnl::get_effective_cpu_isa() != onednn_isa(level))
    throw error(
        ErrorKind::device,
        "cannot compute at instruction-set level {}: oneDNN already works at another level in this process; "
        "use one level a process",
        to_string(level));
}

std::string onednn_version() {
  const dnnl_version_t* version = dnnl::version();
  return fmt::format("{}.{}.{}", version->major, version->minor, version->patch);
}

}  // namespace troupe::kernels
