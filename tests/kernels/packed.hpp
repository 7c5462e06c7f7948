// What the tests of linear share, however its weight is packed: a packed weight with its memory, and odd
// shapes.
#pragma once

#include "tests/kernels/levels.hpp"

namespace troupe::testing {

struct Packed {
  Packed(kernels::CpuStream& stream, const Matrix& w, kernels::PackedType type)
      : memory(kernels::allocate_host(stream.packed_bytes(w.rows, w.cols, type))),
        weight(stream.pack(w.view(), type, memory.data())) {}
  kernels::Buffer memory;
  kernels::PackedWeight weight;
};

// M rows, N output and K input channels; `gap` elements between rows.
struct LinearShape {
  int64_t M, N, K, gap;
};
constexpr LinearShape kLinearShapes[] = {
    {0, 4, 3, 0},      {1, 1, 1, 0},     {1, 16, 32, 0},   {2, 3, 5, 3},      {17, 33, 31, 0},
    {33, 17, 64, 5},   {12, 32, 64, 5},  {64, 96, 32, 0},  {100, 30, 70, 2},  {31, 47, 70, 2},
    {128, 256, 64, 0}, {13, 15, 129, 7}, {5, 200, 129, 7}, {20, 50, 1024, 0}, {2100, 20, 18, 0},
    {70, 37, 2100, 5}, {80, 2100, 40, 0}};

}  // namespace troupe::testing
