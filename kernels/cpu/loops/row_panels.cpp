#include "kernels/cpu/loops/row_panels.hpp"

#include "kernels/cpu/loops/bf16_pairs.hpp"
#include "kernels/cpu/loops/panel_tiles.hpp"

namespace troupe::kernels::TROUPE_ISA {

#if defined(__AVX512BF16__)

namespace {

constexpr int64_t kPair = 2 * kPanelColumns;  // elements of a pair of rows in a panel
constexpr int64_t kPackRows = 32;             // packed at once: their lines are in the nearest cache
constexpr int64_t kAhead = 128;                // columns that are asked for before they are packed
constexpr int kRows = 8, kPanels = 3;         // of a tile: its sums stay in registers
static_assert(kPanelColumns % kRows == 0);

// `rows` rows of `count` columns, by pairs; the last may be alone.
TROUPE_INLINE Vec pack_columns(const uint16_t* x, int64_t rows, int64_t stride, int64_t count, Vec sum,
                               uint16_t* to) {
  for (int64_t row = 0; row < rows; row += 2, x += 2 * stride, to += kPair) {
    __builtin_prefetch(x + kAhead);
    __builtin_prefetch(x + stride + kAhead);
    const Vec first = load(x, count), second = row + 1 < rows ? load(x + stride, count) : zero();
    store(reinterpret_cast<uint32_t*>(to), shift_right(bits_of(first), 16) | bits_of(second));
    sum = sum + first + second;
  }
  return sum;
}

void pack(const uint16_t* x, int64_t rows, int64_t stride, const PanelWeight& packed, float* column_sums) {
  auto* const elements = static_cast<uint16_t*>(packed.elements);
  for (int64_t begin = 0; begin < rows; begin += kPackRows)
    for (int64_t col = 0; col < packed.n; col += kPanelColumns) {
      const int64_t count = packed.n - col < kPanelColumns ? packed.n - col : kPanelColumns;
      const int64_t some = rows - begin < kPackRows ? rows - begin : kPackRows;
      const Vec sum = pack_columns(x + begin * stride + col, some, stride, count,
                                   column_sums == nullptr ? zero() : load(column_sums + col, count),
                                   elements + col / kPanelColumns * packed.panel + begin / 2 * kPair);
      if (column_sums != nullptr) store(column_sums + col, sum, count);
    }
}

// Columns `row` to row + 7 of a's panels, columns of `Panels` panels of b.
template <int Panels>
TROUPE_INLINE void multiply_tile(const PanelWeight& a, const PanelWeight& b, int64_t row, int64_t panel,
                                 const PanelResult& y) {
  Vec sum[kRows][Panels];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
    for (int p = 0; p < Panels; ++p) sum[r][p] = zero();
  const auto* left =
      static_cast<const uint16_t*>(a.elements) + row / kPanelColumns * a.panel + row % kPanelColumns * 2;
  const auto* right = static_cast<const uint16_t*>(b.elements) + panel * b.panel;
  for (int64_t k = 0; k < a.depth; k += 2, left += kPair, right += kPair) {
    Bf16Pairs::Pairs here[Panels];
#pragma GCC unroll 3
    for (int p = 0; p < Panels; ++p) here[p] = Bf16Pairs::load_weights(right + p * b.panel);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Bf16Pairs::Pairs pair = Bf16Pairs::load_row(left + 2 * r);
#pragma GCC unroll 3
      for (int p = 0; p < Panels; ++p) sum[r][p] = Bf16Pairs::add(sum[r][p], pair, here[p]);
    }
  }
  const int64_t rows = a.n - row < kRows ? a.n - row : kRows;
#pragma GCC unroll 3
  for (int p = 0; p < Panels; ++p) {
    const int64_t column = (panel + p) * kPanelColumns;
    const int64_t count = b.n - column < kPanelColumns ? b.n - column : kPanelColumns;
    float* to = static_cast<float*>(y.elements) + row * y.stride + column;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r, to += y.stride)
      if (r < rows) store(to, y.accumulate ? load(to, count) + sum[r][p] : sum[r][p], count);
  }
}

void multiply(const PanelWeight& a, const PanelWeight& b, const PanelResult& y) {
  const int64_t panels = (b.n + kPanelColumns - 1) / kPanelColumns;
  const auto strip = [&]<int Panels>(int64_t panel) {
    for (int64_t row = 0; row < a.n; row += kRows) multiply_tile<Panels>(a, b, row, panel, y);
  };
  int64_t panel = 0;
  for (; panel + kPanels <= panels; panel += kPanels) strip.template operator()<kPanels>(panel);
  for (; panel < panels; ++panel) strip.template operator()<1>(panel);
}

}  // namespace

extern const RowPanelLoops row_panel_loops = {pack, multiply};

#else

extern const RowPanelLoops row_panel_loops = {nullptr, nullptr};

#endif

}  // namespace troupe::kernels::TROUPE_ISA
