#include "bench/gpu_operations.hpp"

#include <array>

#include "kernels/cuda/accumulator.hpp"

namespace troupe::bench {

namespace {

constexpr int64_t kTokens = 8192, kLength = 1024, kWidth = 768, kHeads = 12, kVocabulary = 50257;

void measure_products(GpuMeter& meter) {
  const Buffer x = meter.random(DType::bf16, kTokens * 4 * kWidth),
               w = meter.random(DType::bf16, 4 * kWidth * kWidth),
               y = meter.random(DType::bf16, kTokens * 4 * kWidth),
               dw = meter.random(DType::f32, 4 * kWidth * kWidth),
               bias = meter.random(DType::f32, 4 * kWidth);
  const PackedWeight weight{w.data(), 4 * kWidth, kWidth, DType::bf16};
  const View in = matrix(x, DType::bf16, kTokens, kWidth), out = matrix(y, DType::bf16, kTokens, 4 * kWidth);
  const double flops = 2.0 * kTokens * kWidth * 4 * kWidth;
  meter.flops_row("linear 768 to 3072, 8192 tokens", flops, meter.time([&] {
    meter.stream->linear_forward(in, weight, matrix(bias, DType::f32, 1, 4 * kWidth), out);
  }));
  meter.flops_row("its input's gradient", flops,
                  meter.time([&] { meter.stream->linear_backward_input(out, weight, in, false); }));
  meter.flops_row("its weight's and bias's gradients", flops, meter.time([&] {
    meter.stream->linear_backward_weight(out, in, matrix(dw, DType::f32, 4 * kWidth, kWidth),
                                         matrix(bias, DType::f32, 1, 4 * kWidth));
  }));
}

// A linear operation with its GELU, and the gradient through both, as one product and as operations.
void measure_activations(GpuMeter& meter) {
  const Buffer x = meter.random(DType::bf16, kTokens * kWidth),
               w = meter.random(DType::bf16, 4 * kWidth * kWidth),
               p = meter.random(DType::bf16, kTokens * 4 * kWidth),
               y = meter.random(DType::bf16, kTokens * 4 * kWidth), b = meter.random(DType::f32, 4 * kWidth);
  Stream& stream = *meter.stream;
  const View in = matrix(x, DType::bf16, kTokens, kWidth), pre = matrix(p, DType::bf16, kTokens, 4 * kWidth),
             out = matrix(y, DType::bf16, kTokens, 4 * kWidth), bias = matrix(b, DType::f32, 1, 4 * kWidth);
  const PackedWeight inner{w.data(), 4 * kWidth, kWidth, DType::bf16},
      outer{w.data(), kWidth, 4 * kWidth, DType::bf16};
  const FusedActivation gelu{Activation::gelu, {}, pre};
  const double flops = 2.0 * kTokens * kWidth * 4 * kWidth;
  meter.flops_row("linear 768 to 3072 and GELU, one product", flops,
                  meter.time([&] { stream.linear_activation_forward(in, inner, bias, gelu, out); }));
  meter.flops_row("the same as two operations", flops,
                  meter.time([&] { stream.Stream::linear_activation_forward(in, inner, bias, gelu, out); }));
  meter.flops_row("the gradient through both, one product", flops,
                  meter.time([&] { stream.linear_activation_backward_input(in, outer, gelu, out); }));
  meter.flops_row("the same as two operations", flops,
                  meter.time([&] { stream.Stream::linear_activation_backward_input(in, outer, gelu, out); }));
}

// Beside "bf16 product, 8192 cubed", and the size of a layer; with the time to encode what is multiplied.
void measure_fp8(GpuMeter& meter) {
  const PackedType type(DType::bf16, Packing::fp8);
  Stream& stream = *meter.stream;
  for (const auto& [tokens, in, out] :
       {std::array<int64_t, 3>{8192, 8192, 8192}, {kTokens, kWidth, 4 * kWidth}}) {
    const Buffer master = meter.random(DType::f32, in * out), x = meter.random(DType::bf16, tokens * in),
                 y = meter.random(DType::bf16, tokens * out),
                 packed = meter.stream->runtime().allocate(stream.packed_bytes(out, in, type));
    const PackedWeight weight = stream.pack(matrix(master, DType::f32, out, in), type, packed.data());
    const View input = matrix(x, DType::bf16, tokens, in), output = matrix(y, DType::bf16, tokens, out);
    const double flops = 2.0 * double(tokens) * double(in) * double(out);
    const std::string name = fmt::format("fp8 product, {} to {}, {} tokens", in, out, tokens);
    meter.flops_row(name.c_str(), flops,
                    meter.time([&] { stream.linear_forward(input, weight, {}, output); }));
    meter.flops_row("its input's gradient", flops,
                    meter.time([&] { stream.linear_backward_input(output, weight, input, false); }));
    meter.bytes_row("packing its weight", 12.0 * double(in * out), meter.time([&] {
      stream.pack(matrix(master, DType::f32, out, in), type, packed.data());
    }));
  }
}

// Beside what tensor cores do with bf16.
void measure_f32(GpuMeter& meter) {
  constexpr int64_t kSide = 8192;
  const Buffer w = meter.random(DType::f32, kSide * kSide), x = meter.random(DType::f32, kSide * kSide),
               y = meter.random(DType::f32, kSide * kSide);
  const View in = matrix(x, DType::f32, kSide, kSide), out = matrix(y, DType::f32, kSide, kSide);
  const PackedWeight weight{w.data(), kSide, kSide, DType::f32};
  const double flops = 2.0 * kSide * kSide * kSide;
  const auto run = [&] { meter.stream->linear_forward(in, weight, {}, out); };
  meter.flops_row("f32 product, 8192 cubed", flops, meter.time(run));
  meter.stream->set_tf32(true);
  meter.flops_row("the same in TF32", flops, meter.time(run));
  meter.stream->set_tf32(false);
}

void measure_attention(GpuMeter& meter, float rate) {
  const Buffer qkv = meter.random(DType::bf16, kTokens * 3 * kWidth),
               o = meter.random(DType::bf16, kTokens * kWidth),
               d = meter.random(DType::bf16, kTokens * 3 * kWidth),
               lse = meter.random(DType::f32, kTokens * kHeads);
  const View in = matrix(qkv, DType::bf16, kTokens, 3 * kWidth),
             out = matrix(o, DType::bf16, kTokens, kWidth),
             grad = matrix(d, DType::bf16, kTokens, 3 * kWidth),
             sums = matrix(lse, DType::f32, kTokens / kLength * kHeads, kLength);
  const AttentionShape shape{kTokens / kLength, kLength, kLength,  kHeads, kWidth / kHeads, true,
                             nullptr,           false,   {rate, 5}};
  const auto part = [](View v, int64_t i) { return v.col_range(i * kWidth, kWidth); };
  const double flops = 4.0 * kTokens * kLength * kWidth / 2;  // the half that a causal mask leaves
  const CudaStream::AttentionViews forward{part(in, 0), part(in, 1), part(in, 2), out, sums, {}, {}, {}, {}},
      backward{part(in, 0), part(in, 1),   part(in, 2),   out,          sums,
               out,         part(grad, 0), part(grad, 1), part(grad, 2)};
  const auto by = [&](const auto& views) {
    return meter.stream->fused_at_once(shape, views) > 0 ? "cuDNN" : "our own";
  };
  const std::string name =
      fmt::format("attention, causal, 8 x 1024, 12 heads of 64, dropout {}, {}", rate, by(forward));
  meter.flops_row(name.c_str(), flops, meter.time([&] {
    meter.stream->attention_forward(shape, part(in, 0), part(in, 1), part(in, 2), out, sums);
  }));
  const std::string gradient = fmt::format("its backward pass, {}", by(backward));
  meter.flops_row(gradient.c_str(), 2.5 * flops, meter.time([&] {
    meter.stream->attention_backward(shape, part(in, 0), part(in, 1), part(in, 2), out, sums, out,
                                     part(grad, 0), part(grad, 1), part(grad, 2));
  }));
}

void measure_rows(GpuMeter& meter) {
  const int64_t count = kTokens * kWidth;
  const Buffer x = meter.random(DType::f32, count), y = meter.random(DType::bf16, 4 * count),
               n = meter.random(DType::bf16, 4 * count), g = meter.random(DType::f32, kWidth * 2),
               stats = meter.random(DType::f32, 2 * kTokens), d = meter.random(DType::f32, count);
  const View sum = matrix(x, DType::f32, kTokens, kWidth), in = matrix(y, DType::bf16, kTokens, kWidth),
             normed = matrix(n, DType::bf16, kTokens, kWidth), gamma = matrix(g, DType::f32, 1, kWidth),
             dsum = matrix(d, DType::f32, kTokens, kWidth),
             wide = matrix(y, DType::bf16, kTokens, 4 * kWidth),
             wide_out = matrix(n, DType::bf16, kTokens, 4 * kWidth);
  const View mean = matrix(stats, DType::f32, 2, kTokens).row_range(0, 1),
             rstd = matrix(stats, DType::f32, 2, kTokens).row_range(1, 1),
             dgamma{g.data(), DType::f32, 1, kWidth, kWidth},
             dbeta = matrix(g, DType::f32, 2, kWidth).row_range(1, 1);
  for (const float rate : {0.0f, 0.1f}) {
    const Dropout dropout{rate, 7};
    const std::string suffix = fmt::format(", dropout {}", rate);
    meter.bytes_row(("residual and layer norm" + suffix).c_str(), 12.0 * double(count), meter.time([&] {
      meter.stream->residual_norm_forward({sum, in, dropout, gamma, gamma, sum, normed, {}, mean, rstd});
    }));
    meter.bytes_row(("its backward pass" + suffix).c_str(), 16.0 * double(count), meter.time([&] {
      meter.stream->residual_norm_backward(
          {normed, {}, dsum, sum, gamma, mean, rstd, dropout, dsum, in, dgamma, dbeta});
    }));
    meter.bytes_row(("GELU" + suffix).c_str(), 16.0 * double(count), meter.time([&] {
      meter.stream->activation_forward(Activation::gelu, wide, dropout, wide_out);
    }));
  }
}

void measure_loss(GpuMeter& meter) {
  const Buffer x = meter.random(DType::bf16, kTokens * kWidth),
               w = meter.random(DType::bf16, kVocabulary * kWidth),
               dx = meter.random(DType::bf16, kTokens * kWidth);
  const PackedWeight weight{w.data(), kVocabulary, kWidth, DType::bf16};
  std::vector<int32_t> targets;
  for (uint64_t i = 0; i < uint64_t(kTokens); ++i)
    targets.push_back(int32_t(mix64(1, i) % uint64_t(kVocabulary)));
  DropSink sink;
  meter.flops_row(
      "cross-entropy and its gradients, vocabulary 50257", 6.0 * kTokens * kWidth * kVocabulary,
      meter.time([&] {
        meter.stream->cross_entropy({matrix(x, DType::bf16, kTokens, kWidth), weight, targets.data(), 0.1f,
                                     matrix(dx, DType::bf16, kTokens, kWidth), &sink, 0});
      }));
}

void measure_sums(GpuMeter& meter) {
  constexpr int64_t kElements = int64_t{64} << 20;
  BlockLayout layout;
  layout.append(kElements, kElements);
  DeviceAccumulator sums(*meter.stream, layout);
  DeviceTotal total(*meter.stream, layout);
  const Buffer g = meter.random(DType::f32, kElements), w = meter.random(DType::f32, kElements),
               m = meter.random(DType::f32, kElements), v = meter.random(DType::f32, kElements);
  meter.stream->fill_zero(matrix(v, DType::f32, 1, kElements));
  for (const int bits : {24, 8}) {
    DeviceSink sink(*meter.stream, sums, {bits, 8, 5});
    const std::string name = fmt::format("fold, {} bits", bits);
    meter.bytes_row(name.c_str(), 20.0 * kElements,
                    meter.time([&] { sink.fold(0, matrix(g, DType::f32, 1, kElements)); }));
  }
  sums.clear(*meter.stream);
  DeviceSink(*meter.stream, sums, {24, 8, 5}).fold(0, matrix(g, DType::f32, 1, kElements));
  meter.bytes_row("round the total", 12.0 * kElements, meter.time([&] {
    total.round(*meter.stream, sums, {24, 1});
  }));
  AdamW rule;
  rule.learning_rate = 1e-4f;
  meter.bytes_row("AdamW with dequantisation", 28.0 * kElements, meter.time([&] {
    meter.stream->adamw(
        rule, total, 0, layout.blocks(),
        {static_cast<float*>(w.data()), static_cast<float*>(m.data()), static_cast<float*>(v.data())});
  }));
}

}  // namespace

void measure_ceilings(GpuMeter& meter) {
  constexpr int64_t kBytes = int64_t{2} << 30, kSide = 8192;
  {
    const Buffer a = meter.random(DType::bf16, kBytes / 2),
                 b = meter.stream->runtime().allocate(size_t(kBytes));
    const double ms = meter.time([&] {
      meter.stream->convert(matrix(a, DType::bf16, 1, kBytes / 2), matrix(b, DType::bf16, 1, kBytes / 2));
    });
    meter.copy_gb_s = 2 * double(kBytes) / ms * 1e-6;
  }
  const Buffer x = meter.random(DType::bf16, kSide * kSide), w = meter.random(DType::bf16, kSide * kSide),
               y = meter.random(DType::bf16, kSide * kSide);
  const PackedWeight weight{w.data(), kSide, kSide, DType::bf16};
  const double ms = meter.time([&] {
    meter.stream->linear_forward(matrix(x, DType::bf16, kSide, kSide), weight, {},
                                 matrix(y, DType::bf16, kSide, kSide));
  });
  meter.bf16_tflop_s = 2.0 * kSide * kSide * kSide / ms * 1e-9;
  meter.bytes_row("copy, 2 GiB", 2 * double(kBytes), 2 * double(kBytes) / meter.copy_gb_s * 1e-6);
  meter.flops_row("bf16 product, 8192 cubed", 2.0 * kSide * kSide * kSide, ms);
}

void measure_operations(GpuMeter& meter) {
  measure_products(meter);
  measure_activations(meter);
  measure_f32(meter);
  if (meter.multiplies_fp8()) measure_fp8(meter);
  measure_attention(meter, 0);
  CudaLimits own_kernels;
  own_kernels.attention_bytes = 0;
  GpuMeter own{make_cuda_stream(0, own_kernels), meter.copy_gb_s, meter.bf16_tflop_s};
  measure_attention(own, 0);
  measure_attention(own, 0.1f);
  measure_rows(meter);
  measure_loss(meter);
  measure_sums(meter);
}

}  // namespace troupe::bench
