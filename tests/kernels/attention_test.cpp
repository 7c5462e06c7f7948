#include "kernels/reference/attention.hpp"

#include <doctest/doctest.h>

#include "tests/kernels/levels.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

struct Case {
  int64_t batch, queries, keys, heads, size;
  bool causal;
  float dropout;
  std::vector<int32_t> lengths;
};

const std::vector<Case> kCases = {
    {1, 1, 1, 1, 1, false, 0, {}},
    {2, 0, 3, 2, 4, false, 0, {}},
    {1, 3, 2, 1, 5, true, 0, {}},  // query 0 sees no key
    {2, 7, 7, 2, 16, true, 0, {}},
    {2, 7, 9, 3, 8, false, 0, {0, 5}},
    {3, 17, 33, 2, 32, false, 0.1f, {33, 1, 20}},
    {2, 50, 50, 2, 32, true, 0.2f, {50, 31}},
    {1, 1, 200, 2, 64, true, 0, {}},
    {1, 130, 130, 1, 64, true, 0.1f, {}},
    {2, 49, 300, 1, 24, false, 0.1f, {300, 129}},
    {1, 257, 257, 1, 16, true, 0, {}},
};

struct Inputs {
  explicit Inputs(const Case& c, float scale = 2)
      : shape{c.batch,
              c.queries,
              c.keys,
              c.heads,
              c.size,
              c.causal,
              c.lengths.empty() ? nullptr : c.lengths.data(),
              false,
              {c.dropout, 77}},
        q(random_bf16(c.batch * c.queries, c.heads * c.size, 1, scale)),
        k(random_bf16(c.batch * c.keys, c.heads * c.size, 2, scale)),
        v(random_bf16(c.batch * c.keys, c.heads * c.size, 3, scale)),
        dout(random_bf16(c.batch * c.queries, c.heads * c.size, 4)) {}
  AttentionShape shape;
  Matrix q, k, v, dout;
};

struct Results {
  Matrix out, dq, dk, dv;
};

Results expected_of(const Inputs& in) {
  Results r{in.q, in.q, in.k, in.v};
  std::vector<double> dq(in.q.values.size()), dk(in.k.values.size()), dv(in.v.values.size());
  reference::attention_forward(in.shape, in.q.values.data(), in.k.values.data(), in.v.values.data(),
                               r.out.values.data());
  reference::attention_backward(in.shape, in.q.values.data(), in.k.values.data(), in.v.values.data(),
                                in.dout.values.data(), dq.data(), dk.data(), dv.data());
  const auto to_float = [](double x) { return float(x); };
  std::transform(dq.begin(), dq.end(), r.dq.values.begin(), to_float);
  std::transform(dk.begin(), dk.end(), r.dk.values.begin(), to_float);
  std::transform(dv.begin(), dv.end(), r.dv.values.begin(), to_float);
  return r;
}

Results run(CpuStream& stream, const Inputs& in, DType dtype, int64_t gap) {
  const Strided q(dtype, in.q, gap), k(dtype, in.k, gap), v(dtype, in.v, gap), dout(dtype, in.dout, gap);
  const Strided out(dtype, in.q.rows, in.q.cols, gap), dq(dtype, in.q.rows, in.q.cols, gap),
      dk(dtype, in.k.rows, in.k.cols, gap), dv(dtype, in.v.rows, in.v.cols, gap);
  Matrix lse(in.shape.batch * in.shape.heads, in.shape.queries);
  stream.attention_forward(in.shape, q.view(), k.view(), v.view(), out.view(), lse.view());
  stream.attention_backward(in.shape, q.view(), k.view(), v.view(), out.view(), lse.view(), dout.view(),
                            dq.view(), dk.view(), dv.view());
  return {out.values(), dq.values(), dk.values(), dv.values()};
}

}  // namespace

TEST_CASE("attention agrees with plain loops at every level, type and odd shape") {
  for (const IsaLevel level : machine_levels())
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const Case& c : kCases) {
        CAPTURE(to_string(level));
        CAPTURE(to_string(dtype));
        CAPTURE(c.queries);
        CAPTURE(c.keys);
        CAPTURE(c.size);
        CpuStream stream(level);
        const Inputs in(c);
        const Results expected = expected_of(in), actual = run(stream, in, dtype, c.size % 3);
        // Level v4 rounds the weights and their gradients to bf16. The worst is a sequence of one key, whose
        // gradient is all rounding.
        const double bound = dtype == DType::f32 ? 1e-5 : level == IsaLevel::v4 ? 3e-2 : 1.6e-2;
        CHECK(distance(actual.out, expected.out) < bound);
        CHECK(distance(actual.dq, expected.dq) < bound);
        CHECK(distance(actual.dk, expected.dk) < bound);
        CHECK(distance(actual.dv, expected.dv) < bound);
      }
}

TEST_CASE("attention's gradients are those of its forward pass") {
  for (const size_t which : {4u, 6u}) {
    const Case& c = kCases[which];
    CpuStream stream(best_isa_level());
    const Inputs base(c, 1);
    Matrix lse(c.batch * c.heads, c.queries);
    const auto forward = [&](const std::vector<Matrix>& in) {
      Matrix out(in[0].rows, in[0].cols);
      stream.attention_forward(base.shape, in[0].view(), in[1].view(), in[2].view(), out.view(), lse.view());
      return out;
    };
    const auto backward = [&](const std::vector<Matrix>& in, const Matrix& dout, std::vector<Matrix>& d) {
      const Matrix out = forward(in);
      stream.attention_backward(base.shape, in[0].view(), in[1].view(), in[2].view(), out.view(), lse.view(),
                                dout.view(), d[0].view(), d[1].view(), d[2].view());
    };
    const GradReport report = check_gradients({base.q, base.k, base.v}, forward, backward);
    INFO(report.where);
    CHECK(report.worst < 1e-3);
  }
}

TEST_CASE("a query's attention has the same bits alone as among others, and the same twice") {
  CpuStream stream(best_isa_level());
  const Inputs all({1, 150, 150, 2, 32, true, 0, {}});
  Matrix out(150, 64), again(150, 64), one(1, 64);
  stream.attention_forward(all.shape, all.q.view(), all.k.view(), all.v.view(), out.view(), {});
  stream.attention_forward(all.shape, all.q.view(), all.k.view(), all.v.view(), again.view(), {});
  CHECK(out.values == again.values);
  for (const int64_t i : {0, 1, 23, 24, 127, 128, 149}) {
    AttentionShape shape = all.shape;
    shape.queries = 1;
    shape.keys = i + 1;
    stream.attention_forward(shape, all.q.view().row_range(i, 1), all.k.view().row_range(0, i + 1),
                             all.v.view().row_range(0, i + 1), one.view(), {});
    CHECK(std::equal(one.values.begin(), one.values.end(), out.values.begin() + i * 64));
  }
}

TEST_CASE("few queries have the same bits as many, though their keys are read where they lie") {
  CpuStream stream(best_isa_level());
  for (const DType type : {DType::f32, DType::bf16})
    for (const int64_t size : {16, 24, 32, 64})
      for (const int64_t keys : {1, 15, 16, 17, 50, 128, 129, 300}) {
        CAPTURE(to_string(type));
        CAPTURE(size);
        CAPTURE(keys);
        const int64_t length = keys > 1 ? keys - 1 : keys;
        const Case all{1, 20, keys, 2, size, false, 0, {int32_t(length)}};
        const Inputs in(all);
        const Strided q(type, in.q, 8), k(type, in.k, 16), v(type, in.v, 5);
        const Strided many(type, 20, 2 * size), few(type, 20, 2 * size);
        Matrix many_lse(2, 20), few_lse(2, 20);
        stream.attention_forward(in.shape, q.view(), k.view(), v.view(), many.view(), many_lse.view());
        // The same keys, those of a head behind one another.
        const Strided k_by_head(type, 2 * keys, size), v_by_head(type, 2 * keys, size);
        for (int64_t h = 0; h < 2; ++h) {
          stream.convert(k.view().col_range(h * size, size), k_by_head.view().row_range(h * keys, keys));
          stream.convert(v.view().col_range(h * size, size), v_by_head.view().row_range(h * keys, keys));
        }
        AttentionShape by_head = in.shape;
        by_head.keys_by_head = true;
        const Strided other(type, 20, 2 * size);
        stream.attention_forward(by_head, q.view(), k_by_head.view(), v_by_head.view(), other.view(), {});
        CHECK(other.values().values == many.values().values);
        by_head.queries = 2;
        stream.attention_forward(by_head, q.view().row_range(0, 2), k_by_head.view(), v_by_head.view(),
                                 other.view().row_range(4, 2), {});
        const Matrix two = other.values(), all_of_them = many.values();
        CHECK(std::equal(two.values.begin() + 4 * 2 * size, two.values.begin() + 6 * 2 * size,
                         all_of_them.values.begin()));
        for (int64_t first = 0, count = 1; first < 20; first += count, count = count % 6 + 1) {
          AttentionShape shape = in.shape;
          shape.queries = count = std::min(count, 20 - first);
          stream.attention_forward(shape, q.view().row_range(first, count), k.view(), v.view(),
                                   few.view().row_range(first, count),
                                   few_lse.view().col_range(first, count));
        }
        CHECK(few.values().values == many.values().values);
        CHECK(few_lse.values == many_lse.values);
      }
}

TEST_CASE("attention in bf16 gives a sequence the same bits alone as in a batch, and the same twice") {
  CpuStream stream(best_isa_level());
  const Case both{2, 61, 147, 2, 40, false, 0, {147, 130}};
  const Inputs in(both);
  const Results all = run(stream, in, DType::bf16, 3), again = run(stream, in, DType::bf16, 0);
  CHECK(all.out.values == again.out.values);
  CHECK(all.dq.values == again.dq.values);
  CHECK(all.dk.values == again.dk.values);
  CHECK(all.dv.values == again.dv.values);
  for (int64_t b = 0; b < 2; ++b) {
    Case alone = both;
    alone.batch = 1;
    alone.lengths = {both.lengths[size_t(b)]};
    Inputs one(alone);
    const auto part = [&](const Matrix& from, Matrix& to) {
      const auto size = int64_t(to.values.size());
      std::copy_n(from.values.begin() + b * size, size, to.values.begin());
    };
    part(in.q, one.q);
    part(in.k, one.k);
    part(in.v, one.v);
    part(in.dout, one.dout);
    const Results results = run(stream, one, DType::bf16, 0);
    const auto same = [&](const Matrix& x, const Matrix& y) {
      return std::equal(x.values.begin(), x.values.end(), y.values.begin() + b * int64_t(x.values.size()));
    };
    CHECK(same(results.out, all.out));
    CHECK(same(results.dq, all.dq));
    CHECK(same(results.dk, all.dk));
    CHECK(same(results.dv, all.dv));
  }
}

TEST_CASE("attention on column ranges of one matrix gives the bits of separate matrices") {
  CpuStream stream(best_isa_level());
  const Inputs in({2, 20, 20, 2, 16, true, 0.1f, {}});
  const Results apart = run(stream, in, DType::f32, 0);
  Matrix qkv(40, 96), dqkv(40, 96), out(40, 32), lse(4, 20);
  const auto part = [](Matrix& m, int64_t which) { return m.view().col_range(which * 32, 32); };
  stream.convert(in.q.view(), part(qkv, 0));
  stream.convert(in.k.view(), part(qkv, 1));
  stream.convert(in.v.view(), part(qkv, 2));
  stream.attention_forward(in.shape, part(qkv, 0), part(qkv, 1), part(qkv, 2), out.view(), lse.view());
  stream.attention_backward(in.shape, part(qkv, 0), part(qkv, 1), part(qkv, 2), out.view(), lse.view(),
                            in.dout.view(), part(dqkv, 0), part(dqkv, 1), part(dqkv, 2));
  CHECK(out.values == apart.out.values);
  Matrix dk(40, 32);
  stream.convert(part(dqkv, 1), dk.view());
  CHECK(dk.values == apart.dk.values);
}

TEST_CASE("v3 and v4 give the same bits of attention") {
  if (best_isa_level() < IsaLevel::v4) return;
  CpuStream v3(IsaLevel::v3), v4(IsaLevel::v4);
  const Inputs in(kCases[8]);
  const Results a = run(v3, in, DType::f32, 0), b = run(v4, in, DType::f32, 0);
  CHECK(a.out.values == b.out.values);
  CHECK(a.dq.values == b.dq.values);
  CHECK(a.dk.values == b.dk.values);
  CHECK(a.dv.values == b.dv.values);
}
