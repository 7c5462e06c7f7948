// Built where cuDNN was not found.
#include "kernels/base/error.hpp"
#include "kernels/cuda/fused_attention.hpp"

namespace troupe::kernels {

std::string attention_numerics(int) {
  return "no cuDNN";
}

struct CudnnAttention::State {};

CudnnAttention::CudnnAttention(cudaStream_t stream, int device) : stream_(stream), device_(device) {}
CudnnAttention::~CudnnAttention() = default;

std::optional<size_t> CudnnAttention::workspace(const FusedAttention&) {
  return std::nullopt;
}

void CudnnAttention::attend(const FusedAttention&) {
  TROUPE_CHECK(false, "this program was built without cuDNN");
}

}  // namespace troupe::kernels
