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
