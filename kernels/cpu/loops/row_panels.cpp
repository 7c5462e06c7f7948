#include "kernels/cpu/loops/row_panels.hpp"

#include "kernels/cpu/loops/factors.hpp"

namespace troupe::kernels::TROUPE_ISA {

#if defined(__AVX2__)

namespace {

#if defined(__AVX512BF16__)
using Kind = Bf16Pairs;
constexpr int kRows = 8, kPanels = 3;  // of a tile: its sums stay in registers
constexpr int64_t kLeftColumns = kPanelColumns;
constexpr int64_t kLeftElements = INT64_MAX;  // of the left factor at once
#else
using Kind = F32;
constexpr int kRows = 6, kPanels = 1;
constexpr int64_t kLeftColumns = kRows;
constexpr int64_t kLeftElements = 64 << 10;  // they stay in a near cache
#endif
static_assert(kLeftColumns % kRows == 0);

using Element = Kind::Element;
constexpr int64_t kGroup = Kind::kGroup;
constexpr int64_t kPackRows = 32;  // packed at once: their lines are in the nearest cache
constexpr int64_t kAhead = 128;    // columns that are asked for before they are packed

// A group of rows of `count` columns, of which `rows` are there, to `to`, and their sum to `sum`.
template <typename T>
TROUPE_INLINE Vec pack_group(const T* x, int64_t, int64_t, int64_t count, Vec sum, float* to) {
  __builtin_prefetch(x + kAhead);
  const Vec row = load(x, count);
  store(to, row);
  return sum + row;
}
TROUPE_INLINE Vec pack_group(const uint16_t* x, int64_t rows, int64_t stride, int64_t count, Vec sum,
                             uint16_t* to) {
  __builtin_prefetch(x + kAhead);
  __builtin_prefetch(x + stride + kAhead);
  const Vec first = load(x, count), second = rows > 1 ? load(x + stride, count) : zero();
  store(reinterpret_cast<uint32_t*>(to), shift_right(bits_of(first), 16) | bits_of(second));
  return sum + first + second;
}

// `rows` rows of at most sixteen columns.
template <typename T>
TROUPE_INLINE Vec pack_columns(const T* x, int64_t rows, int64_t stride, int64_t count, Vec sum,
                               Element* to) {
  for (int64_t row = 0; row < rows; row += kGroup, x += kGroup * stride, to += kGroup * kPanelColumns)
    sum = pack_group(x, rows - row, stride, count, sum, to);
  return sum;
}

template <typename T>
void pack_wide(const T* x, int64_t rows, int64_t stride, const PanelWeight& packed, float* column_sums) {
  auto* const elements = static_cast<Element*>(packed.elements);
  for (int64_t begin = 0; begin < rows; begin += kPackRows)
    for (int64_t col = 0; col < packed.n; col += kPanelColumns) {
      const int64_t count = packed.n - col < kPanelColumns ? packed.n - col : kPanelColumns;
      const int64_t some = rows - begin < kPackRows ? rows - begin : kPackRows;
      const Vec sum = pack_columns(x + begin * stride + col, some, stride, count,
                                   column_sums == nullptr ? zero() : load(column_sums + col, count),
                                   elements + col / kPanelColumns * packed.panel + begin * kPanelColumns);
      if (column_sums != nullptr) store(column_sums + col, sum, count);
    }
}
template <typename T>
void pack_right(const T* x, int64_t rows, int64_t stride, const PanelWeight& packed) {
  pack_wide(x, rows, stride, packed, nullptr);
}

#if !defined(__AVX512BF16__)

constexpr int64_t kStrip = 8;  // panels packed at once

TROUPE_INLINE __m256 load_eight(const float* x) {
  return _mm256_loadu_ps(x);
}
TROUPE_INLINE __m256 load_eight(const uint16_t* x) {
  return (__m256)_mm256_slli_epi32(
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x))), 16);
}
TROUPE_INLINE void store_six(float* to, __m256 six) {
  _mm_storeu_ps(to, _mm256_castps256_ps128(six));
  _mm_storel_pi(reinterpret_cast<__m64*>(to + 4), _mm256_extractf128_ps(six, 1));
}
// The first `count` lanes, zeros in the others.
template <typename T>
TROUPE_INLINE __m256 load_some(const T* x, int64_t count) {
  T lanes[8] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = x[i];
  return load_eight(lanes);
}

// `rows` rows of a panel of `count` columns; returns their sum.
template <typename T>
TROUPE_INLINE __m256 pack_six(const T* x, int64_t rows, int64_t stride, int64_t count, __m256 sum,
                              float* to) {
  for (int64_t row = 0; row < rows; ++row, x += stride, to += kLeftColumns) {
    const __m256 six = load_some(x, count);
    store_six(to, six);
    sum += six;
  }
  return sum;
}

// The same of kStrip panels side by side, with two columns more behind the last: each store reaches two
// elements into the next row's place, but for the last row of all.
template <typename T>
TROUPE_INLINE void pack_strip(const T* x, int64_t rows, int64_t stride, int64_t panel, bool last, __m256* sum,
                              float* to) {
  for (int64_t row = 0; row < rows; ++row, x += stride, to += kLeftColumns)
#pragma GCC unroll 8
    for (int64_t p = 0; p < kStrip; ++p) {
      const __m256 six = load_eight(x + p * kLeftColumns);
      sum[p] += six;
      if (last && row + 1 == rows)
        store_six(to + p * panel, six);
      else
        _mm256_storeu_ps(to + p * panel, six);
    }
}

// Panels of kLeftColumns columns, which are no whole Vec.
template <typename T>
void pack_narrow(const T* x, int64_t rows, int64_t stride, const PanelWeight& packed, float* column_sums) {
  auto* const elements = static_cast<float*>(packed.elements);
  const auto sum_before = [&](int64_t col, int64_t count) {
    return column_sums == nullptr ? _mm256_setzero_ps() : load_some(column_sums + col, count);
  };
  const auto keep_sum = [&](int64_t col, int64_t count, __m256 sum) {
    float lanes[8];
    _mm256_storeu_ps(lanes, sum);
    for (int64_t c = 0; column_sums != nullptr && c < count; ++c) column_sums[col + c] = lanes[c];
  };
  for (int64_t begin = 0; begin < rows; begin += kPackRows) {
    const int64_t some = rows - begin < kPackRows ? rows - begin : kPackRows;
    const T* const from = x + begin * stride;
    const auto place = [&](int64_t col) {
      return elements + col / kLeftColumns * packed.panel + begin * kLeftColumns;
    };
    int64_t col = 0;
    for (; col + kStrip * kLeftColumns + 2 <= packed.n; col += kStrip * kLeftColumns) {
      __m256 sum[kStrip];
      for (int64_t p = 0; p < kStrip; ++p) sum[p] = sum_before(col + p * kLeftColumns, kLeftColumns);
      pack_strip(from + col, some, stride, packed.panel, begin + some == rows, sum, place(col));
      for (int64_t p = 0; p < kStrip; ++p) keep_sum(col + p * kLeftColumns, kLeftColumns, sum[p]);
    }
    for (; col < packed.n; col += kLeftColumns) {
      const int64_t count = packed.n - col < kLeftColumns ? packed.n - col : kLeftColumns;
      keep_sum(col, count, pack_six(from + col, some, stride, count, sum_before(col, count), place(col)));
    }
  }
}

#endif

// Columns `row` to row + kRows - 1 of the left panels, columns of `Panels` panels of the right.
template <int Panels>
TROUPE_INLINE void multiply_tile(const PanelWeight& a, const PanelWeight& b, int64_t row, int64_t panel,
                                 const PanelResult& y) {
  Vec sum[kRows][Panels];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
    for (int p = 0; p < Panels; ++p) sum[r][p] = zero();
  const auto* left =
      static_cast<const Element*>(a.elements) + row / kLeftColumns * a.panel + row % kLeftColumns * kGroup;
  const auto* right = static_cast<const Element*>(b.elements) + panel * b.panel;
  for (int64_t k = 0; k < a.depth;
       k += kGroup, left += kGroup * kLeftColumns, right += kGroup * kPanelColumns) {
    decltype(Kind::load_weights(right)) here[Panels];
#pragma GCC unroll 3
    for (int p = 0; p < Panels; ++p) here[p] = Kind::load_weights(right + p * b.panel);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const auto scalar = Kind::load_row(left + kGroup * r);
#pragma GCC unroll 3
      for (int p = 0; p < Panels; ++p) sum[r][p] = Kind::add(sum[r][p], scalar, here[p]);
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
      if (r < rows)
        store(to, y.before == PanelResult::added_to ? load(to, count) + sum[r][p] : sum[r][p], count);
  }
}

void multiply(const PanelWeight& a, const PanelWeight& b, const PanelResult& y) {
  const int64_t panels = (b.n + kPanelColumns - 1) / kPanelColumns;
  const int64_t fitting = kLeftElements / (a.depth * kRows),
                rows_at_once = (fitting > 1 ? fitting : 1) * kRows;
  for (int64_t first = 0, end; first < a.n; first = end) {
    end = a.n - first < rows_at_once ? a.n : first + rows_at_once;
    const auto strip = [&]<int Panels>(int64_t panel) {
      for (int64_t row = first; row < end; row += kRows) multiply_tile<Panels>(a, b, row, panel, y);
    };
    int64_t panel = 0;
    for (; panel + kPanels <= panels; panel += kPanels) strip.template operator()<kPanels>(panel);
    for (; panel < panels; ++panel) strip.template operator()<1>(panel);
  }
}

}  // namespace

#if defined(__AVX512BF16__)
extern const RowPanelLoops row_panel_loops = {kLeftColumns,         nullptr, pack_wide<uint16_t>, nullptr,
                                              pack_right<uint16_t>, multiply};
#else
extern const RowPanelLoops row_panel_loops = {kLeftColumns,      pack_narrow<float>,   pack_narrow<uint16_t>,
                                              pack_right<float>, pack_right<uint16_t>, multiply};
#endif

#else

extern const RowPanelLoops row_panel_loops = {kPanelColumns, nullptr, nullptr, nullptr, nullptr, nullptr};

#endif

}  // namespace troupe::kernels::TROUPE_ISA
