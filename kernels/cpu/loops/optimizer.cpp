#include "kernels/cpu/loops/optimizer.hpp"

#include "kernels/cpu/loops/runs.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

double square_sum(const int32_t* mantissa, int64_t count) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane)
      lanes[lane] += double(mantissa[i + lane]) * double(mantissa[i + lane]);
  for (int lane = 0; i < count; ++i, ++lane) lanes[lane] += double(mantissa[i]) * double(mantissa[i]);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

TROUPE_INLINE Vec load_mantissas(const int32_t* p, All) {
  return to_float(load(reinterpret_cast<const uint32_t*>(p)));
}
TROUPE_INLINE Vec load_mantissas(const int32_t* p, Some lanes) {
  int32_t padded[kLanes] = {};
  for (int64_t i = 0; i < lanes.count; ++i) padded[i] = p[i];
  return load_mantissas(padded, All{});
}

void adamw(const AdamWRule* rule, const int32_t* mantissa, int64_t count, float* weight, float* moment1,
           float* moment2) {
  const AdamWRule r = *rule;
  for_row(count, [&](int64_t i, auto lanes) TROUPE_BODY {
    const Vec g = load_mantissas(mantissa + i, lanes) * broadcast(r.gradient_factor);
    const Vec m = load(moment1 + i, lanes) * broadcast(r.beta1) + g * broadcast(r.one_minus_beta1);
    const Vec v = load(moment2 + i, lanes) * broadcast(r.beta2) + g * g * broadcast(r.one_minus_beta2);
    const Vec root = sqrt(v) * broadcast(r.inverse_root_correction2) + broadcast(r.epsilon);
    const Vec w = load(weight + i, lanes) * broadcast(r.decay) - m * broadcast(r.step) / root;
    store(moment1 + i, m, lanes);
    store(moment2 + i, v, lanes);
    store(weight + i, w, lanes);
  });
}

}  // namespace

extern const OptimizerLoops optimizer_loops = {square_sum, adamw};

}  // namespace troupe::kernels::TROUPE_ISA
