#include <numeric>

#include <doctest/doctest.h>

#include "tests/kernels/levels.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

void check_topk(IsaLevel level, const Matrix& logits, int64_t k) {
  CAPTURE(to_string(level));
  CAPTURE(logits.cols);
  CAPTURE(k);
  CpuStream stream(level);
  const Strided in(DType::f32, logits, 3);
  Matrix values(logits.rows, k);
  std::vector<int32_t> ids(size_t(logits.rows * k));
  stream.log_softmax_topk(in.view(), k, values.view(), view_of(ids.data(), logits.rows, k));
  for (int64_t r = 0; r < logits.rows; ++r) {
    std::vector<int32_t> order(size_t(logits.cols));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return logits.at(r, a) > logits.at(r, b); });
    double sum = 0;
    for (int64_t c = 0; c < logits.cols; ++c) sum += std::exp(double(logits.at(r, c)));
    for (int64_t i = 0; i < k; ++i) {
      CHECK(ids[size_t(r * k + i)] == order[size_t(i)]);
      CHECK(double(values.at(r, i)) ==
            doctest::Approx(double(logits.at(r, order[size_t(i)])) - std::log(sum)).epsilon(1e-6));
    }
  }
}

}  // namespace

TEST_CASE("the largest log-softmax values come sorted, ties by id, at every level and odd size") {
  for (const IsaLevel level : machine_levels())
    for (const int64_t cols : {1, 2, 15, 16, 17, 100, 1003})
      for (const int64_t k : {1, 2, 4, 17})
        if (k <= cols) {
          check_topk(level, random_matrix(3, cols, 1, 4), k);
          Matrix ties = random_matrix(3, cols, 2, 4);
          for (float& v : ties.values) v = float(int(v));
          check_topk(level, ties, k);
        }
}
