// Kernels of kernels/cuda/activation.cpp. The bits of the CPU's levels v3 and v4.
#pragma once

#include "kernels/cuda/device/elementwise.hpp"
#include "kernels/cuda/device/math.hpp"

namespace troupe::kernels::device {

TROUPE_DEVICE float relu(float x) {
  return larger(0.0f, x);
}
TROUPE_DEVICE float relu_slope(float x) {
  return 0.0f < x ? 1.0f : 0.0f;
}

// x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) (Hendrycks & Gimpel 2016, the form of GPT-2).
constexpr float kGeluRoot = 0.7978845608f, kGeluCubic = 0.044715f;
TROUPE_DEVICE float gelu_tanh(float x) {
  return tanh(kGeluRoot * fused(kGeluCubic * x * x, x, x));
}
TROUPE_DEVICE float gelu(float x) {
  return 0.5f * x * (1.0f + gelu_tanh(x));
}
TROUPE_DEVICE float gelu_slope(float x) {
  const float t = gelu_tanh(x);
  const float inner = kGeluRoot * fused(3 * kGeluCubic * x, x, 1.0f);
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
}

template <typename T, int N>
struct ActivationForward : ElementTile<N> {
  Shape shape;
  bool is_gelu = false;
  DropoutRule rule;
  Rows<const T> x;
  Rows<T> y;

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    this->run(block, shape, rule, [&](Place at, const uint32_t* words) {
      float v[N];
      load(x.row(at.row) + at.col, v);
      TROUPE_UNROLL for (int i = 0; i < N; ++i) {
        const float factor = rule.drops() ? rule.factor(words[i]) : rule.scale;
        v[i] = (is_gelu ? gelu(v[i]) : relu(v[i])) * factor;
      }
      store(y.row(at.row) + at.col, v);
    });
  }
};

template <typename T, int N>
struct ActivationBackward : ElementTile<N> {
  Shape shape;
  bool is_gelu = false;
  DropoutRule rule;
  Rows<const T> x, dy;
  Rows<T> dx;  // may be dy

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    this->run(block, shape, rule, [&](Place at, const uint32_t* words) {
      float v[N], d[N];
      load(x.row(at.row) + at.col, v);
      load(dy.row(at.row) + at.col, d);
      TROUPE_UNROLL for (int i = 0; i < N; ++i) {
        const float factor = rule.drops() ? rule.factor(words[i]) : rule.scale;
        d[i] = d[i] * factor * (is_gelu ? gelu_slope(v[i]) : relu_slope(v[i]));
      }
      store(dx.row(at.row) + at.col, d);
    });
  }
};

}  // namespace troupe::kernels::device
