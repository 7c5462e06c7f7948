// How products with a weight in panels of sixteen output channels walk over their results: a tile of a few
// rows and panels is summed up in registers. For sources compiled by troupe_isa_loops only.
#pragma once

#include "kernels/cpu/loops/vec.hpp"

namespace troupe::kernels::TROUPE_ISA {

// Calls tile.operator()<Rows, Panels>(row, panel) for tiles of at most kRows and kPanels that cover all:
// first all rows of a strip of panels, whose weights stay in a near cache meanwhile.
template <int kRows, int kPanels, typename Tile>
static void for_each_tile(int64_t rows, int64_t panels, const Tile& tile) {
  const auto strip = [&]<int Panels>(int64_t panel) {
    int64_t row = 0;
    for (; row + kRows <= rows; row += kRows) tile.template operator()<kRows, Panels>(row, panel);
    if constexpr (kRows > 4)
      for (; row + 4 <= rows; row += 4) tile.template operator()<4, Panels>(row, panel);
    if constexpr (kRows > 2)
      for (; row + 2 <= rows; row += 2) tile.template operator()<2, Panels>(row, panel);
    for (; row < rows; ++row) tile.template operator()<1, Panels>(row, panel);
  };
  int64_t panel = 0;
  for (; panel + kPanels <= panels; panel += kPanels) strip.template operator()<kPanels>(panel);
  for (; panel < panels; ++panel) strip.template operator()<1>(panel);
}

}  // namespace troupe::kernels::TROUPE_ISA
