#include "kernels/cpu/loops/activation.hpp"

#include "kernels/cpu/loops/runs.hpp"
#include "kernels/cpu/loops/vec_math.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

struct Relu {
  TROUPE_INLINE Vec value(Vec x) { return max(zero(), x); }  // keeps NaN
  TROUPE_INLINE Vec slope(Vec x) { return keep_where(less(zero(), x), broadcast(1.0f)); }
};

// x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) (Hendrycks & Gimpel 2016, the form of GPT-2).
struct Gelu {
  static constexpr float kRoot = 0.7978845608f, kCubic = 0.044715f;
  TROUPE_INLINE Vec inner_tanh(Vec x) {
    return tanh(broadcast(kRoot) * fmadd(broadcast(kCubic) * x * x, x, x));
  }
  TROUPE_INLINE Vec value(Vec x) { return broadcast(0.5f) * x * (broadcast(1.0f) + inner_tanh(x)); }
  TROUPE_INLINE Vec slope(Vec x) {
    const Vec one = broadcast(1.0f), half = broadcast(0.5f), t = inner_tanh(x);
    const Vec inner = broadcast(kRoot) * fmadd(broadcast(3 * kCubic) * x, x, one);
    return half * (one + t) + half * x * (one - t * t) * inner;
  }
};

template <typename Kind, typename T>
void forward(const T* x, int64_t count, const DropoutMask* mask, uint64_t first, T* y) {
  for_row_dropped(*mask, first, count, [&](int64_t i, auto lanes, Vec factors) TROUPE_BODY {
    store(y + i, Kind::value(load(x + i, lanes)) * factors, lanes);
  });
}

template <typename Kind, typename T>
void backward(const T* x, const T* dy, int64_t count, const DropoutMask* mask, uint64_t first, T* dx) {
  for_row_dropped(*mask, first, count, [&](int64_t i, auto lanes, Vec factors) TROUPE_BODY {
    store(dx + i, load(dy + i, lanes) * factors * Kind::slope(load(x + i, lanes)), lanes);
  });
}

template <typename T>
constexpr ActivationLoopsOf<T> loops_for() {
  return {forward<Relu, T>, backward<Relu, T>, forward<Gelu, T>, backward<Gelu, T>};
}

}  // namespace

extern const ActivationLoops activation_loops = {loops_for<float>(), loops_for<uint16_t>()};

}  // namespace troupe::kernels::TROUPE_ISA
