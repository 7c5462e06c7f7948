// A Product by our own kernel (device/product.hpp).
#pragma once

#include "kernels/cuda/device/product.hpp"
#include "kernels/cuda/runtime.hpp"

namespace troupe::kernels {

// REQUIRES: factors of one type, f32 or bf16; f32 factors have an f32 result; nothing is fused.
inline void multiply_plainly(DeviceRuntime& runtime, const Product& p) {
  TROUPE_CHECK(!p.is_fused() && !p.is_fp8());
  TROUPE_CHECK(p.a.dtype == p.b.dtype && (p.a.dtype == DType::bf16 || p.dtype == DType::f32));
  const auto run = [&](auto element, auto result) {
    using T = decltype(element);
    using D = decltype(result);
    device::PlainProduct<T, D> kernel;
    kernel.m = p.m;
    kernel.n = p.n;
    kernel.k = p.k;
    kernel.a = {static_cast<const T*>(p.a.data), p.a.leading, p.a.transposed};
    kernel.b = {static_cast<const T*>(p.b.data), p.b.leading, p.b.transposed};
    kernel.d = static_cast<D*>(p.d);
    kernel.leading = p.leading;
    kernel.bias = static_cast<const D*>(p.bias);
    kernel.accumulate = p.accumulate;
    runtime.launch(call_of(kernel, kernel.blocks(p.m, p.n), "plain product"));
  };
  if (p.a.dtype == DType::f32)
    run(float{}, float{});
  else if (p.dtype == DType::f32)
    run(uint16_t{}, float{});
  else
    run(uint16_t{}, uint16_t{});
}

}  // namespace troupe::kernels
