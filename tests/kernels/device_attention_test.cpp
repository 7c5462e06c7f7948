#include "tests/kernels/devices.hpp"

using namespace troupe;
using namespace troupe::kernels;
using namespace troupe::testing;

namespace {

struct Case {
  int64_t B, Tq, Tk, H, D;
  bool causal, lengths;
  float rate;
};

AttentionShape shape_of(const Case& c) {
  AttentionShape shape;
  shape.batch = c.B;
  shape.queries = c.Tq;
  shape.keys = c.Tk;
  shape.heads = c.H;
  shape.head_size = c.D;
  return shape;
}

// q, k and v are column ranges of one matrix where queries and keys are as many.
void check_case(const Case& c, DType dtype) {
  CAPTURE(c.B);
  CAPTURE(c.Tq);
  CAPTURE(c.Tk);
  CAPTURE(c.D);
  CAPTURE(to_string(dtype));
  const int64_t C = c.H * c.D;
  std::vector<int32_t> lengths;
  for (int64_t b = 0; b < c.B; ++b) lengths.push_back(int32_t(b == 0 ? c.Tk : (b * 7 + 3) % (c.Tk + 1)));
  AttentionShape shape = shape_of(c);
  shape.causal = c.causal;
  shape.key_lengths = c.lengths ? lengths.data() : nullptr;
  shape.dropout = {c.rate, 5};
  const Matrix q = random_bf16(c.B * c.Tq, C, 1), kv = random_bf16(c.B * c.Tk, 2 * C, 2),
               dout = random_bf16(c.B * c.Tq, C, 3);
  check_devices(
      [&](TestDevice& device) {
        const Placed q_in(device, dtype, q, 8), kv_in(device, dtype, kv, 8),
            out(device, dtype, c.B * c.Tq, C), lse(device, DType::f32, c.B * c.H, c.Tq),
            d(device, dtype, dout), dq(device, dtype, c.B * c.Tq, C, 8),
            dkv(device, dtype, c.B * c.Tk, 2 * C, 8);
        const View k = kv_in.view().col_range(0, C), v = kv_in.view().col_range(C, C);
        device.stream().attention_forward(shape, q_in.view(), k, v, out.view(), lse.view());
        device.stream().attention_backward(shape, q_in.view(), k, v, out.view(), lse.view(), d.view(),
                                           dq.view(), dkv.view().col_range(0, C), dkv.view().col_range(C, C));
        return Results{lse.values(), out.values(), dq.values(), dkv.values()};
      },
      {dtype == DType::f32 ? 5e-6 : 1e-4, 2 * tolerance(dtype), 4 * tolerance(dtype)});
}

// Keys and values whose heads lie behind one another, as those of a cache.
void check_by_head(const Case& c, DType dtype) {
  CAPTURE(c.Tk);
  CAPTURE(c.D);
  CAPTURE(to_string(dtype));
  AttentionShape shape = shape_of(c);
  shape.keys_by_head = true;
  const Matrix q = random_bf16(c.B * c.Tq, c.H * c.D, 1), k = random_bf16(c.B * c.H * c.Tk, c.D, 2),
               v = random_bf16(c.B * c.H * c.Tk, c.D, 3);
  check_devices(
      [&](TestDevice& device) {
        const Placed q_in(device, dtype, q), k_in(device, dtype, k), v_in(device, dtype, v),
            out(device, dtype, c.B * c.Tq, c.H * c.D), lse(device, DType::f32, c.B * c.H, c.Tq);
        device.stream().attention_forward(shape, q_in.view(), k_in.view(), v_in.view(), out.view(),
                                          lse.view());
        return Results{lse.values(), out.values()};
      },
      {dtype == DType::f32 ? 5e-6 : 1e-4, 2 * tolerance(dtype)});
}

}  // namespace

TEST_CASE("attention to keys by head agrees with the CPU on every device") {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Case& c : {Case{2, 1, 33, 3, 8, false, false, 0}, Case{3, 4, 70, 2, 64, false, false, 0},
                          Case{1, 40, 16, 2, 32, false, false, 0}})
      check_by_head(c, dtype);
}

TEST_CASE("attention and its gradients agree with the CPU on every device") {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Case& c :
         {Case{1, 1, 1, 1, 1, false, false, 0}, Case{2, 5, 7, 3, 8, false, true, 0.2f},
          Case{2, 33, 33, 2, 16, true, true, 0}, Case{1, 70, 70, 1, 64, true, false, 0.1f},
          Case{1, 31, 65, 2, 24, true, false, 0}, Case{1, 65, 31, 1, 40, true, false, 0},
          Case{1, 40, 100, 1, 128, false, true, 0.3f}, Case{1, 9, 40, 1, 200, false, false, 0},
          Case{0, 4, 4, 2, 8, false, false, 0}, Case{3, 1, 64, 2, 32, true, true, 0},
          Case{2, 64, 64, 1, 32, false, true, 0}, Case{2, 70, 70, 2, 64, true, true, 0.2f},
          Case{1, 65, 129, 1, 128, true, false, 0}, Case{1, 33, 20, 2, 80, false, true, 0.1f},
          Case{1, 128, 128, 1, 64, true, false, 0.1f}, Case{1, 50, 30, 1, 112, true, false, 0},
          Case{1, 130, 130, 1, 16, true, false, 0}})
      check_case(c, dtype);
}

// What cuDNN has, in its place the emulated device: all sequences at once, or some at a time.
TEST_CASE("attention of whole blocks agrees with the CPU on every device") {
  for (const Case& c : {Case{1, 128, 128, 2, 64, true, false, 0}, Case{5, 128, 128, 1, 32, true, false, 0},
                        Case{2, 128, 256, 1, 8, false, false, 0}, Case{1, 256, 128, 1, 128, false, true, 0}})
    check_case(c, DType::bf16);
}

namespace {

// out, lse, dq, dk and dv of attention on an emulated device with these limits.
Results attend(const CudaLimits& limits, AttentionShape shape, int64_t gap = 0) {
  const auto device = emulated_test_device(limits);
  const int64_t C = shape.heads * shape.head_size, rows = shape.batch * shape.queries;
  const Placed q(*device, DType::bf16, random_bf16(rows, C, 1), gap),
      k(*device, DType::bf16, random_bf16(rows, C, 2)), v(*device, DType::bf16, random_bf16(rows, C, 3)),
      dout(*device, DType::bf16, random_bf16(rows, C, 4)), out(*device, DType::bf16, rows, C),
      lse(*device, DType::f32, shape.batch * shape.heads, shape.queries), dq(*device, DType::bf16, rows, C),
      dk(*device, DType::bf16, rows, C), dv(*device, DType::bf16, rows, C),
      bare(*device, DType::bf16, rows, C);
  Stream& stream = device->stream();
  stream.attention_forward(shape, q.view(), k.view(), v.view(), out.view(), lse.view());
  stream.attention_forward(shape, q.view(), k.view(), v.view(), bare.view(), {});
  CHECK(same_bits(bare.values(), out.values()));
  stream.attention_backward(shape, q.view(), k.view(), v.view(), out.view(), lse.view(), dout.view(),
                            dq.view(), dk.view(), dv.view());
  return {out.values(), lse.values(), dq.values(), dk.values(), dv.values()};
}

bool same_bits_all(const Results& a, const Results& b) {
  return std::ranges::equal(a, b, [](const Matrix& x, const Matrix& y) { return same_bits(x, y); });
}

}  // namespace

TEST_CASE(
    "fused attention is taken where it can be, and gives the same bits however many sequences at a time") {
  CudaLimits never, all;
  never.attention_bytes = 0;  // so the kernels of our own
  AttentionShape shape = shape_of({3, 128, 128, 1, 16, true, false, 0});
  shape.causal = true;
  const Results ours = attend(never, shape), fused = attend(all, shape);
  CHECK_FALSE(same_bits_all(fused, ours));
  CudaLimits one = all;
  one.attention_bytes = 128 * (2 * 128 + 4);
  CHECK(same_bits_all(attend(one, shape), fused));
  const std::vector<int32_t> whole(3, 128), padded{128, 127, 128};
  shape.key_lengths = whole.data();
  CHECK(same_bits_all(attend(all, shape), fused));
  shape.key_lengths = padded.data();
  CHECK(same_bits_all(attend(all, shape), attend(never, shape)));
  shape.key_lengths = nullptr;
  CHECK(same_bits_all(attend(all, shape, 3), attend(never, shape, 3)));  // rows that are not aligned
  shape.dropout = {0.1f, 5};
  CHECK(same_bits_all(attend(all, shape), attend(never, shape)));
  shape = shape_of({2, 64, 64, 1, 16, false, false, 0});
  CHECK(same_bits_all(attend(all, shape), attend(never, shape)));
}

TEST_CASE("attention refuses heads that its kernels cannot hold") {
  for (const auto& device : other_test_devices()) {
    AttentionShape shape;
    shape.batch = shape.queries = shape.keys = shape.heads = 1;
    shape.head_size = 257;
    const Placed x(*device, DType::f32, 1, 257);
    CHECK_THROWS_AS(device->stream().attention_forward(shape, x.view(), x.view(), x.view(), x.view(), {}),
                    CheckFailure);
  }
}
