#include <doctest/doctest.h>

#include "kernels/accumulator.hpp"
#include "kernels/dropout.hpp"
#include "tests/kernels/levels.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

constexpr int32_t kPad = 2;

std::vector<int32_t> ids_of(int64_t rows, int64_t vocabulary) {
  std::vector<int32_t> ids;
  for (int64_t row = 0; row < rows; ++row)
    ids.push_back(int32_t(mix64(4, uint64_t(row)) % uint64_t(std::min<int64_t>(vocabulary, 9))));
  return ids;
}

struct Case {
  int64_t vocabulary, rows, cols, length;  // length 0: no positions
  float scale;
  Dropout dropout;
};
const Case kCases[] = {{5, 12, 17, 4, 2.0f, {0.2f, 6}},
                       {40, 33, 32, 11, 1.0f, {0, 0}},
                       {3, 0, 8, 4, 1.0f, {0, 0}},
                       {9, 1, 1, 0, 3.0f, {0, 0}},
                       {9, 20, 300, 0, 0.5f, {0.5f, 1}}};

struct Gradients {
  std::vector<float> table;
  Matrix positions;
};

Gradients backward(IsaLevel level, const Case& c, const std::vector<int32_t>& ids, const Matrix& dout) {
  CpuStream stream(level);
  GatherSink sink(10 + c.vocabulary * c.cols);
  const Strided d(DType::f32, dout, 3);
  Gradients result;
  result.positions = Matrix(c.length, c.cols, 5);
  stream.embedding_backward(ids, kPad, c.scale, c.dropout, d.view(), sink, 10,
                            c.length > 0 ? result.positions.view() : View{});
  result.table = sink.values();
  return result;
}

}  // namespace

TEST_CASE("embeddings add scaled rows and positions and drop, as the reference, at every level") {
  for (const Case& c : kCases) {
    const std::vector<int32_t> ids = ids_of(c.rows, c.vocabulary);
    const Matrix table = random_matrix(c.vocabulary, c.cols, 1),
                 positions = random_matrix(c.length, c.cols, 2);
    Matrix expected(c.rows, c.cols);
    for (int64_t row = 0; row < c.rows; ++row)
      for (int64_t col = 0; col < c.cols; ++col) {
        const double position = c.length > 0 ? double(positions.at(row % c.length, col)) : 0;
        expected.at(row, col) = float((double(table.at(ids[size_t(row)], col)) * double(c.scale) + position) *
                                      double(dropout_factor(c.dropout, uint64_t(row * c.cols + col))));
      }
    std::vector<Matrix> results;
    for (IsaLevel level : machine_levels()) {
      CpuStream stream(level);
      const Strided out(DType::f32, c.rows, c.cols, 2);
      stream.embedding_forward(ids, table.view(), c.length > 0 ? positions.view() : ConstView{}, c.scale,
                               c.dropout, out.view());
      results.push_back(out.values());
      CHECK(distance(results.back(), expected) < 1e-6);
      CHECK(results.back().values == results.front().values);
    }
  }
}

TEST_CASE("embedding gradients of equal ids are summed, padding is left out, positions collect their rows") {
  for (const Case& c : kCases) {
    const std::vector<int32_t> ids = ids_of(c.rows, c.vocabulary);
    const Matrix dout = random_matrix(c.rows, c.cols, 3);
    Matrix table(c.vocabulary, c.cols), positions(c.length, c.cols);
    for (int64_t row = 0; row < c.rows; ++row)
      for (int64_t col = 0; col < c.cols; ++col) {
        const float d = dout.at(row, col) * dropout_factor(c.dropout, uint64_t(row * c.cols + col));
        if (ids[size_t(row)] != kPad) table.at(ids[size_t(row)], col) += d * c.scale;
        if (c.length > 0) positions.at(row % c.length, col) += d;
      }
    std::vector<Gradients> results;
    for (IsaLevel level : machine_levels()) {
      results.push_back(backward(level, c, ids, dout));
      const std::vector<float>& flat = results.back().table;
      Matrix folded(c.vocabulary, c.cols);
      folded.values.assign(flat.begin() + 10, flat.end());
      CHECK(distance(folded, table) < 1e-6);
      CHECK(distance(results.back().positions, positions) < 1e-6);
      CHECK(flat == results.front().table);
      CHECK(std::all_of(flat.begin(), flat.begin() + 10, [](float v) { return v == 0; }));
    }
  }
}

TEST_CASE("each row of an embedding is folded once, and only the rows that occur") {
  class CountingSink : public GradientSink {
   public:
    void fold(int64_t offset, ConstView gradient) override {
      CHECK(gradient.size() == 16);
      offsets.push_back(offset);
    }
    std::vector<int64_t> offsets;
  };
  CpuStream stream(best_isa_level());
  CountingSink sink;
  const std::vector<int32_t> ids{7, 1, 7, kPad, 3, 1, 7};
  const Matrix dout = random_matrix(7, 16, 1);
  stream.embedding_backward(ids, kPad, 1, {}, dout.view(), sink, 1000, {});
  CHECK(sink.offsets == std::vector<int64_t>{1016, 1048, 1112});
}

TEST_CASE("the gradients of embeddings pass the numeric check") {
  const Case c{7, 15, 12, 5, 1.5f, {0.25f, 8}};
  std::vector<int32_t> ids = ids_of(c.rows, c.vocabulary);
  for (int32_t& id : ids)
    if (id == kPad) id = 3;
  const auto value = [&](const std::vector<Matrix>& in) {
    CpuStream stream(best_isa_level());
    Matrix out(c.rows, c.cols);
    stream.embedding_forward(ids, in[0].view(), in[1].view(), c.scale, c.dropout, out.view());
    return out;
  };
  const auto gradient = [&](const std::vector<Matrix>&, const Matrix& dout, std::vector<Matrix>& din) {
    const Gradients g = backward(best_isa_level(), c, ids, dout);
    din[0].values.assign(g.table.begin() + 10, g.table.end());
    din[1] = g.positions;
  };
  const GradReport report = check_gradients(
      {random_matrix(c.vocabulary, c.cols, 1), random_matrix(c.length, c.cols, 2)}, value, gradient);
  INFO(report.where);
  CHECK(report.worst < 1e-3);
}

TEST_CASE("a token beyond the vocabulary is refused") {
  CpuStream stream(best_isa_level());
  const Matrix table(4, 8);
  Matrix out(1, 8);
  for (int32_t id : {-1, 4}) {
    const std::vector<int32_t> ids{id};
    CHECK_THROWS_AS(stream.embedding_forward(ids, table.view(), {}, 1, {}, out.view()), CheckFailure);
  }
}
