#include "kernels/cpu/loops/panels.hpp"

#include "kernels/cpu/loops/panel_tiles.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

#if defined(__AVX512F__)
constexpr int kRows = 12, kPanels = 2;  // of a tile: its sums stay in registers
#elif defined(__AVX2__)
constexpr int kRows = 4, kPanels = 1;
#else
constexpr int kRows = 2, kPanels = 1;
#endif

// `Group` elements of K are multiplied at once.
template <int64_t Group, typename T>
void pack(const T* w, int64_t k, int64_t stride, const PanelWeight& packed) {
  auto* const to = static_cast<T*>(packed.elements);
  const int64_t channels = (packed.n + kPanelColumns - 1) / kPanelColumns * kPanelColumns;
  for (int64_t n = 0; n < channels; ++n)
    for (int64_t i = 0; i < packed.depth; ++i) {
      const int64_t panel = n / kPanelColumns * packed.depth + i / Group * Group;
      const bool there = n < packed.n && i < k;
      to[panel * kPanelColumns + n % kPanelColumns * Group + i % Group] = there ? w[n * stride + i] : T(0);
    }
}

struct F32 {
  using Element = float;
  static constexpr int64_t kGroup = 1;
  TROUPE_INLINE Vec load_weights(const float* p) { return load(p); }
  TROUPE_INLINE Vec load_row(const float* p) { return broadcast(*p); }
  TROUPE_INLINE Vec add(Vec sum, Vec x, Vec w) { return fmadd(x, w, sum); }
};

// Two elements of K at once.
struct Bf16Pairs {
  using Element = uint16_t;
  static constexpr int64_t kGroup = 2;
#if defined(__AVX512BF16__)
  using Pairs = IVec;
  TROUPE_INLINE Pairs pairs_of(IVec both) {
    return both;
  }
  TROUPE_INLINE Vec add(Vec sum, Pairs x, Pairs w) {
    sum.r[0] = _mm512_dpbf16_ps(sum.r[0], (__m512bh)x.r[0], (__m512bh)w.r[0]);
    return sum;
  }
#else
  struct Pairs {
    Vec even, odd;
  };
  TROUPE_INLINE Pairs pairs_of(IVec both) {
    return {float_of_bits(shift_left(both, 16)), float_of_bits(both & broadcast(uint32_t{0xffff0000}))};
  }
  TROUPE_INLINE Vec add(Vec sum, Pairs x, Pairs w) {
    return fmadd(x.odd, w.odd, fmadd(x.even, w.even, sum));
  }
#endif
  TROUPE_INLINE Pairs load_weights(const uint16_t* p) {
    return pairs_of(load(reinterpret_cast<const uint32_t*>(p)));
  }
  TROUPE_INLINE Pairs load_row(const uint16_t* p) {
    uint32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return pairs_of(broadcast(pair));
  }
};

template <typename Kind, int Rows, int Panels, typename T>
TROUPE_INLINE void multiply_tile(const PanelRows& x, const PanelWeight& w, int64_t row, int64_t panel,
                                 const float* bias, T* y, int64_t stride) {
  using Element = typename Kind::Element;
  Vec sum[Rows][Panels];
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int p = 0; p < Panels; ++p) sum[r][p] = zero();
  const auto* weights = static_cast<const Element*>(w.elements) + panel * w.depth * kPanelColumns;
  const auto* rows = static_cast<const Element*>(x.elements) + row * x.stride;
  for (int64_t k = 0; k < w.depth; k += Kind::kGroup) {
    decltype(Kind::load_weights(weights)) here[Panels];
#pragma GCC unroll 2
    for (int p = 0; p < Panels; ++p)
      here[p] = Kind::load_weights(weights + (p * w.depth + k) * kPanelColumns);
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) {
      const auto scalar = Kind::load_row(rows + r * x.stride + k);
#pragma GCC unroll 2
      for (int p = 0; p < Panels; ++p) sum[r][p] = Kind::add(sum[r][p], scalar, here[p]);
    }
  }
#pragma GCC unroll 2
  for (int p = 0; p < Panels; ++p) {
    const int64_t column = (panel + p) * kPanelColumns;
    const int64_t count = w.n - column < kPanelColumns ? w.n - column : kPanelColumns;
    const Vec add = bias == nullptr ? zero() : load(bias + column, count);
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r) store(y + (row + r) * stride + column, sum[r][p] + add, count);
  }
}

template <typename Kind, typename T>
void multiply(const PanelRows& x, const PanelWeight& w, const float* bias, T* y, int64_t stride) {
  for_each_tile<kRows, kPanels>(x.rows, (w.n + kPanelColumns - 1) / kPanelColumns,
                                [&]<int Rows, int Panels>(int64_t row, int64_t panel) {
                                  multiply_tile<Kind, Rows, Panels>(x, w, row, panel, bias, y, stride);
                                });
}

}  // namespace

extern const PanelLoops panel_loops = {pack<1, float>, pack<2, uint16_t>, multiply<F32, float>,
                                       multiply<Bf16Pairs, uint16_t>, multiply<Bf16Pairs, float>};

}  // namespace troupe::kernels::TROUPE_ISA
