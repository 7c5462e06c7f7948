#include "kernels/cpu/loops/norm.hpp"

#include "kernels/cpu/loops/runs.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

constexpr float kEpsilon = 1e-5f;

// r = x + dropout(y) into `sum`; returns r, which is x where there is no y to add.
template <typename T>
TROUPE_INLINE const float* add_residual(const NormRow<T>& a) {
  if (a.y != nullptr) {
    for_row_dropped(a.mask, a.first, a.cols, [&](int64_t i, auto lanes, Vec factors) TROUPE_BODY {
      store(a.sum + i, load(a.x + i, lanes) + load(a.y + i, lanes) * factors, lanes);
    });
    return a.sum;
  }
  if (a.sum != nullptr && a.sum != a.x)
    for_row(a.cols,
            [&](int64_t i, auto lanes) TROUPE_BODY { store(a.sum + i, load(a.x + i, lanes), lanes); });
  return a.x;
}

template <typename T>
void forward(const NormRow<T>* row) {
  const NormRow<T>& a = *row;
  const float* r = add_residual(a);
  if (a.gamma == nullptr) return;
  const bool centres = a.beta != nullptr;
  Vec total = zero(), squares = zero();
  if (centres)
    for_row(a.cols, [&](int64_t i, auto lanes) TROUPE_BODY { total = total + load(r + i, lanes); });
  const float mean = sum_lanes(total) / float(a.cols);
  for_row(a.cols, [&](int64_t i, auto lanes) TROUPE_BODY {
    const Vec d = only(load(r + i, lanes) - broadcast(mean), lanes);
    squares = squares + d * d;
  });
  const float rstd = 1.0f / __builtin_sqrtf(sum_lanes(squares) / float(a.cols) + kEpsilon);
  for_row(a.cols, [&](int64_t i, auto lanes) TROUPE_BODY {
    const Vec hat = (load(r + i, lanes) - broadcast(mean)) * broadcast(rstd);
    Vec out = hat * load(a.gamma + i, lanes);
    if (centres) out = out + load(a.beta + i, lanes);
    if (a.normed != nullptr) store(a.normed + i, out, lanes);
    if (a.normed_f32 != nullptr) store(a.normed_f32 + i, out, lanes);
  });
  if (a.mean != nullptr) *a.mean = mean;
  if (a.rstd != nullptr) *a.rstd = rstd;
}

template <typename T, typename Lanes>
TROUPE_INLINE Vec normed_gradient(const NormGradRow<T>& a, int64_t i, Lanes lanes) {
  Vec g = zero();
  if (a.dnormed != nullptr) g = load(a.dnormed + i, lanes);
  if (a.dnormed_f32 != nullptr) g = g + load(a.dnormed_f32 + i, lanes);
  return g;
}

// d normed / d r: rstd * (g gamma - mean(g gamma) - hat * mean(g gamma hat)), with hat the normalised r; RMS
// norm has no mean(g gamma).
template <typename T>
void backward(const NormGradRow<T>* row) {
  const NormGradRow<T>& a = *row;
  const bool centres = a.dbeta != nullptr;
  float mean_g = 0, mean_gh = 0;
  if (a.gamma != nullptr) {
    Vec sum_g = zero(), sum_gh = zero();
    for_row(a.cols, [&](int64_t i, auto lanes) TROUPE_BODY {
      const Vec hat = (load(a.sum + i, lanes) - broadcast(a.mean)) * broadcast(a.rstd);
      const Vec g = normed_gradient(a, i, lanes);
      store(a.dgamma + i, load(a.dgamma + i, lanes) + g * hat, lanes);
      if (centres) store(a.dbeta + i, load(a.dbeta + i, lanes) + g, lanes);
      const Vec scaled = g * load(a.gamma + i, lanes);  // zero in lanes beyond the row
      if (centres) sum_g = sum_g + scaled;
      sum_gh = sum_gh + scaled * hat;
    });
    mean_g = sum_lanes(sum_g) / float(a.cols);
    mean_gh = sum_lanes(sum_gh) / float(a.cols);
  }
  const DropoutMask mask = a.dy == nullptr ? DropoutMask{0, 0, 1.0f} : a.mask;
  for_row_dropped(mask, a.first, a.cols, [&](int64_t i, auto lanes, Vec factors) TROUPE_BODY {
    Vec d = a.dsum_in != nullptr ? load(a.dsum_in + i, lanes) : zero();
    if (a.gamma != nullptr) {
      const Vec hat = (load(a.sum + i, lanes) - broadcast(a.mean)) * broadcast(a.rstd);
      const Vec scaled = normed_gradient(a, i, lanes) * load(a.gamma + i, lanes);
      d = d + (scaled - broadcast(mean_g) - hat * broadcast(mean_gh)) * broadcast(a.rstd);
    }
    if (a.dsum != nullptr) store(a.dsum + i, d, lanes);
    if (a.dy != nullptr) store(a.dy + i, d * factors, lanes);
  });
}

}  // namespace

extern const NormLoops norm_loops = {forward<float>, forward<uint16_t>, backward<float>, backward<uint16_t>};

}  // namespace troupe::kernels::TROUPE_ISA
