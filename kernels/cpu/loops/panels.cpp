#include "kernels/cpu/loops/panels.hpp"

#include <type_traits>

#include "kernels/cpu/loops/factors.hpp"
#include "kernels/cpu/loops/panel_tiles.hpp"
#include "kernels/cpu/loops/transpose.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

// Of a tile: its sums stay in registers.
#if defined(__AVX512F__)
template <typename Kind>
constexpr int kRows = 12;
constexpr int kPanels = 2;
#elif defined(__AVX2__)
template <typename Kind>
constexpr int kRows = 4;  // a pair takes two registers more
template <>
constexpr int kRows<F32> = 6;
constexpr int kPanels = 1;
#else
template <typename Kind>
constexpr int kRows = 2;
constexpr int kPanels = 1;
#endif

// Sixteen channels from `first` on; `Group` elements of K are multiplied at once.
template <int64_t Group, typename T>
void pack_panel(const T* w, int64_t k, int64_t stride, const PanelWeight& packed, int64_t first) {
  T* const to = static_cast<T*>(packed.elements) + first / kPanelColumns * packed.panel;
  int64_t i = 0;
#if defined(__AVX2__)
  if constexpr (sizeof(T) * Group == 4)
    if (first + kPanelColumns <= packed.n) {
      const void* rows[kPanelColumns];
      for (int64_t c = 0; c < kPanelColumns; ++c) rows[c] = w + (first + c) * stride;
      for (; i + 8 * Group <= k; i += 8 * Group) {
        IVec columns[8];
        transpose_columns(rows, size_t(i) * sizeof(T), columns);
        for (int64_t c = 0; c < 8; ++c)
          store(reinterpret_cast<uint32_t*>(to + (i + c * Group) * kPanelColumns), columns[c]);
      }
    }
#endif
  for (; i < packed.depth; ++i)
    for (int64_t c = 0; c < kPanelColumns; ++c) {
      const bool there = first + c < packed.n && i < k;
      to[i / Group * Group * kPanelColumns + c * Group + i % Group] =
          there ? w[(first + c) * stride + i] : T(0);
    }
}

template <int64_t Group, typename T>
void pack(const T* w, int64_t k, int64_t stride, const PanelWeight& packed) {
  for (int64_t n = 0; n < packed.n; n += kPanelColumns) pack_panel<Group>(w, k, stride, packed, n);
}

template <typename Kind, int Rows, int Panels, typename T>
TROUPE_INLINE void multiply_tile(const PanelRows& x, const PanelWeight& w, int64_t row, int64_t panel,
                                 const PanelResult& y) {
  using Element = typename Kind::Element;
  Vec sum[Rows][Panels];
#pragma GCC unroll 12
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int p = 0; p < Panels; ++p) sum[r][p] = zero();
  const auto* weights = static_cast<const Element*>(w.elements) + panel * w.panel;
  const auto* rows = static_cast<const Element*>(x.elements) + row * x.stride;
  if constexpr (std::is_same_v<T, float>)
    if (y.before == PanelResult::continued)
#pragma GCC unroll 12
      for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
        for (int p = 0; p < Panels; ++p) {
          const int64_t column = (panel + p) * kPanelColumns;
          const float* from = static_cast<const float*>(y.elements) + (row + r) * y.stride + column;
          sum[r][p] = load(from, w.n - column < kPanelColumns ? w.n - column : kPanelColumns);
        }
  for (int64_t k = 0; k < w.depth; k += Kind::kGroup) {
    decltype(Kind::load_weights(weights)) here[Panels];
#pragma GCC unroll 2
    for (int p = 0; p < Panels; ++p) here[p] = Kind::load_weights(weights + p * w.panel + k * kPanelColumns);
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
    const Vec add = y.bias == nullptr ? zero() : load(y.bias + column, count);
    T* to = static_cast<T*>(y.elements) + row * y.stride + column;
#pragma GCC unroll 12
    for (int r = 0; r < Rows; ++r, to += y.stride) {
      const Vec result = sum[r][p] + add;
      store(to, y.before == PanelResult::added_to ? load(to, count) + result : result, count);
    }
  }
}

template <typename Kind, typename T>
void multiply(const PanelRows& x, const PanelWeight& w, const PanelResult& y) {
  for_each_tile<kRows<Kind>, kPanels>(x.rows, (w.n + kPanelColumns - 1) / kPanelColumns,
                                      [&]<int Rows, int Panels>(int64_t row, int64_t panel) {
                                        multiply_tile<Kind, Rows, Panels, T>(x, w, row, panel, y);
                                      });
}

}  // namespace

extern const PanelLoops panel_loops = {pack<1, float>,
                                       pack<2, uint16_t>,
                                       multiply<F32, float>,
                                       multiply<F32, uint16_t>,
                                       multiply<Bf16Pairs, uint16_t>,
                                       multiply<Bf16Pairs, float>};

}  // namespace troupe::kernels::TROUPE_ISA
