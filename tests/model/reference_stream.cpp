#include "tests/model/reference_stream.hpp"

#include <algorithm>

namespace troupe::testing {

using kernels::Activation;
using kernels::AttentionShape;

void ReferenceStream::linear_forward(ConstView x, kernels::PackedWeight w, ConstView bias, View y) {
  for (int64_t m = 0; m < x.rows; ++m)
    for (int64_t n = 0; n < w.n; ++n) {
      double sum = bias.empty() ? 0 : double(at(bias, 0, n));
      for (int64_t k = 0; k < w.k; ++k) sum += double(at(x, m, k)) * double(weight(w, n, k));
      at(y, m, n) = float(sum);
    }
}

void ReferenceStream::linear_backward_input(ConstView dy, kernels::PackedWeight w, View dx, bool accumulate) {
  for (int64_t m = 0; m < dy.rows; ++m)
    for (int64_t k = 0; k < w.k; ++k) {
      double sum = accumulate ? double(at(dx, m, k)) : 0;
      for (int64_t n = 0; n < w.n; ++n) sum += double(at(dy, m, n)) * double(weight(w, n, k));
      at(dx, m, k) = float(sum);
    }
}

void ReferenceStream::linear_backward_weight(ConstView dy, ConstView x, View dw, View dbias) {
  for (int64_t n = 0; n < dy.cols; ++n) {
    double column = 0;
    for (int64_t m = 0; m < dy.rows; ++m) column += double(at(dy, m, n));
    if (!dbias.empty()) at(dbias, 0, n) = float(column);
    for (int64_t k = 0; k < x.cols; ++k) {
      double sum = 0;
      for (int64_t m = 0; m < dy.rows; ++m) sum += double(at(dy, m, n)) * double(at(x, m, k));
      at(dw, n, k) = float(sum);
    }
  }
}

bool ReferenceStream::softmax(const AttentionShape& s, ConstView q, ConstView k, int64_t b, int64_t h,
                              int64_t i, std::vector<double>& weights, double& lse) {
  const int64_t seen = s.key_lengths == nullptr ? s.keys : int64_t(s.key_lengths[b]);
  const int64_t end = s.causal ? std::min(seen, i + s.keys - s.queries + 1) : seen;
  weights.assign(size_t(s.keys), 0);
  if (end <= 0) return false;
  double largest = -1e300, sum = 0;
  for (int64_t j = 0; j < end; ++j) {
    double dot = 0;
    for (int64_t d = 0; d < s.head_size; ++d)
      dot += double(at(q, b * s.queries + i, h * s.head_size + d)) *
             double(at(k, b * s.keys + j, h * s.head_size + d));
    weights[size_t(j)] = dot / std::sqrt(double(s.head_size));
    largest = std::max(largest, weights[size_t(j)]);
  }
  for (int64_t j = 0; j < end; ++j) sum += weights[size_t(j)] = std::exp(weights[size_t(j)] - largest);
  for (int64_t j = 0; j < end; ++j) weights[size_t(j)] /= sum;
  lse = largest + std::log(sum);
  return true;
}

void ReferenceStream::attention_forward(const AttentionShape& s, ConstView q, ConstView k, ConstView v,
                                        View out, View lse) {
  std::vector<double> p;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t i = 0; i < s.queries; ++i) {
        double log_sum = 0;
        softmax(s, q, k, b, h, i, p, log_sum);
        if (!lse.empty()) at(lse, b * s.heads + h, i) = float(log_sum);
        for (int64_t c = h * s.head_size; c < (h + 1) * s.head_size; ++c) {
          double sum = 0;
          for (int64_t j = 0; j < s.keys; ++j) sum += p[size_t(j)] * double(at(v, b * s.keys + j, c));
          at(out, b * s.queries + i, c) = float(sum);
        }
      }
}

void ReferenceStream::attention_backward(const AttentionShape& s, ConstView q, ConstView k, ConstView v,
                                         ConstView out, ConstView, ConstView dout, View dq, View dk,
                                         View dv) {
  fill_zero(dq);
  fill_zero(dk);
  fill_zero(dv);
  const double scale = 1 / std::sqrt(double(s.head_size));
  std::vector<double> p;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t i = 0; i < s.queries; ++i) {
        double unused = 0, delta = 0;
        softmax(s, q, k, b, h, i, p, unused);
        const int64_t row = b * s.queries + i, first = h * s.head_size, last = first + s.head_size;
        for (int64_t c = first; c < last; ++c) delta += double(at(dout, row, c)) * double(at(out, row, c));
        for (int64_t j = 0; j < s.keys; ++j) {
          const int64_t key = b * s.keys + j;
          double dp = 0;
          for (int64_t c = first; c < last; ++c) dp += double(at(dout, row, c)) * double(at(v, key, c));
          const double ds = p[size_t(j)] * (dp - delta) * scale;
          for (int64_t c = first; c < last; ++c) {
            at(dv, key, c) += float(p[size_t(j)] * double(at(dout, row, c)));
            at(dk, key, c) += float(ds * double(at(q, row, c)));
            at(dq, row, c) += float(ds * double(at(k, key, c)));
          }
        }
      }
}

void ReferenceStream::residual_norm_forward(const kernels::ResidualNorm& a) {
  std::vector<double> r(size_t(a.x.cols));
  for (int64_t m = 0; m < a.x.rows; ++m) {
    const bool centres = a.kind == kernels::NormKind::layer;
    double mean = 0, variance = 0;
    for (int64_t c = 0; c < a.x.cols; ++c) {
      r[size_t(c)] = double(at(a.x, m, c)) + (a.y.empty() ? 0 : double(at(a.y, m, c)));
      if (centres) mean += r[size_t(c)] / double(a.x.cols);
    }
    for (double value : r) variance += (value - mean) * (value - mean) / double(a.x.cols);
    const double rstd = 1 / std::sqrt(variance + 1e-5);
    if (centres) at(a.mean, 0, m) = float(mean);
    at(a.rstd, 0, m) = float(rstd);
    for (int64_t c = 0; c < a.x.cols; ++c) {
      const double normed =
          (r[size_t(c)] - mean) * rstd * double(at(a.gamma, 0, c)) + (centres ? double(at(a.beta, 0, c)) : 0);
      if (!a.sum.empty()) at(a.sum, m, c) = float(r[size_t(c)]);
      if (!a.normed.empty()) at(a.normed, m, c) = float(normed);
      if (!a.normed_f32.empty()) at(a.normed_f32, m, c) = float(normed);
    }
  }
}

void ReferenceStream::residual_norm_backward(const kernels::ResidualNormGrad& a) {
  const bool centres = a.kind == kernels::NormKind::layer;
  fill_zero(a.dgamma);
  if (centres) fill_zero(a.dbeta);
  const int64_t width = a.sum.cols;
  for (int64_t m = 0; m < a.sum.rows; ++m) {
    const double mean = centres ? double(at(a.mean, 0, m)) : 0, rstd = double(at(a.rstd, 0, m));
    double sum_g = 0, sum_gx = 0;
    std::vector<double> g(static_cast<size_t>(width)), x(static_cast<size_t>(width));
    for (int64_t c = 0; c < width; ++c) {
      const double dn = (a.dnormed.empty() ? 0 : double(at(a.dnormed, m, c))) +
                        (a.dnormed_f32.empty() ? 0 : double(at(a.dnormed_f32, m, c)));
      x[size_t(c)] = (double(at(a.sum, m, c)) - mean) * rstd;
      at(a.dgamma, 0, c) += float(dn * x[size_t(c)]);
      if (centres) at(a.dbeta, 0, c) += float(dn);
      g[size_t(c)] = dn * double(at(a.gamma, 0, c));
      if (centres) sum_g += g[size_t(c)] / double(width);
      sum_gx += g[size_t(c)] * x[size_t(c)] / double(width);
    }
    for (int64_t c = 0; c < width; ++c) {
      double d = rstd * (g[size_t(c)] - sum_g - x[size_t(c)] * sum_gx);
      if (!a.dsum_in.empty()) d += double(at(a.dsum_in, m, c));
      at(a.dsum, m, c) = float(d);
      if (!a.dy.empty()) at(a.dy, m, c) = float(d);
    }
  }
}

void ReferenceStream::rotate(View x, ConstView turns, bool inverse) {
  const int64_t half = turns.cols / 2;
  for (int64_t m = 0; m < x.rows; ++m)
    for (int64_t c = 0; c < x.cols; ++c) {
      const int64_t i = c % turns.cols;
      if (i >= half) continue;
      const double a = double(at(x, m, c)), b = double(at(x, m, c + half));
      const double cosine = double(at(turns, m % turns.rows, i));
      const double sine = double(at(turns, m % turns.rows, half + i)) * (inverse ? -1 : 1);
      at(x, m, c) = float(a * cosine - b * sine);
      at(x, m, c + half) = float(a * sine + b * cosine);
    }
}

namespace {
constexpr double kGelu = 0.7978845608028654;  // sqrt(2 / pi)
}

void ReferenceStream::activation_forward(Activation kind, ConstView x, kernels::Dropout, View y) {
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t c = 0; c < x.cols; ++c) {
      const double v = double(at(x, r, c));
      at(y, r, c) =
          float(kind == Activation::relu ? std::max(v, 0.0)
                                         : 0.5 * v * (1 + std::tanh(kGelu * (v + 0.044715 * v * v * v))));
    }
}

void ReferenceStream::activation_backward(Activation kind, ConstView x, kernels::Dropout, ConstView dy,
                                          View dx) {
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t c = 0; c < x.cols; ++c) {
      const double v = double(at(x, r, c));
      const double t = std::tanh(kGelu * (v + 0.044715 * v * v * v));
      const double slope = kind == Activation::relu
                               ? (v > 0 ? 1.0 : 0.0)
                               : 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * kGelu * (1 + 3 * 0.044715 * v * v);
      at(dx, r, c) = float(double(at(dy, r, c)) * slope);
    }
}

void ReferenceStream::embedding_forward(std::span<const int32_t> ids, ConstView table, ConstView positions,
                                        float scale, kernels::Dropout, View out) {
  for (int64_t m = 0; m < out.rows; ++m)
    for (int64_t c = 0; c < out.cols; ++c)
      at(out, m, c) = at(table, ids[size_t(m)], c) * scale +
                      (positions.empty() ? 0 : at(positions, m % positions.rows, c));
}

void ReferenceStream::embedding_backward(std::span<const int32_t> ids, int32_t pad_id, float scale,
                                         kernels::Dropout, ConstView dout, kernels::GradientSink& sink,
                                         int64_t offset, View dpositions) {
  std::map<int32_t, std::vector<float>> rows;
  if (!dpositions.empty()) fill_zero(dpositions);
  for (int64_t m = 0; m < dout.rows; ++m) {
    auto& row = rows[ids[size_t(m)]];
    row.resize(size_t(dout.cols));
    for (int64_t c = 0; c < dout.cols; ++c) {
      row[size_t(c)] += scale * at(dout, m, c);
      if (!dpositions.empty()) at(dpositions, m % dpositions.rows, c) += at(dout, m, c);
    }
  }
  for (const auto& [id, row] : rows)
    if (id != pad_id) sink.fold(offset + id * dout.cols, kernels::view_of(row.data(), 1, dout.cols));
}

kernels::LossSums ReferenceStream::cross_entropy(const kernels::CrossEntropy& a) {
  kernels::LossSums sums;
  const int64_t vocabulary = a.weight.n, width = a.weight.k;
  std::vector<float> dw(size_t(vocabulary * width), 0);
  std::vector<double> p(static_cast<size_t>(vocabulary));
  if (!a.dx.empty()) fill_zero(a.dx);
  for (int64_t m = 0; m < a.x.rows; ++m) {
    const int32_t target = a.targets[m];
    if (target < 0) continue;
    double largest = -1e300, sum = 0, mean_logit = 0;
    for (int64_t n = 0; n < vocabulary; ++n) {
      double dot = 0;
      for (int64_t k = 0; k < width; ++k) dot += double(at(a.x, m, k)) * double(weight(a.weight, n, k));
      p[size_t(n)] = dot;
      mean_logit += dot / double(vocabulary);
      largest = std::max(largest, dot);
    }
    const double target_logit = p[size_t(target)];
    if (std::max_element(p.begin(), p.end()) - p.begin() == target) ++sums.correct;
    for (double& value : p) sum += value = std::exp(value - largest);
    const double lse = largest + std::log(sum), e = double(a.smoothing);
    sums.nll += lse - target_logit;
    sums.loss += lse - (1 - e) * target_logit - e * mean_logit;
    ++sums.tokens;
    if (a.dx.empty()) continue;
    for (int64_t n = 0; n < vocabulary; ++n) {
      const double d = p[size_t(n)] / sum - (n == target ? 1 - e : 0) - e / double(vocabulary);
      for (int64_t k = 0; k < width; ++k) {
        at(a.dx, m, k) += float(d * double(weight(a.weight, n, k)));
        dw[size_t(n * width + k)] += float(d * double(at(a.x, m, k)));
      }
    }
  }
  if (a.sink != nullptr)
    a.sink->fold(a.weight_offset, kernels::view_of(std::as_const(dw).data(), vocabulary, width));
  return sums;
}

namespace {

double gradient_of(const kernels::RoundedTotal& total, int64_t block, int64_t element) {
  return std::ldexp(double(total.mantissa[size_t(element)]),
                    int(total.shift[size_t(block)]) + kernels::kGridExponent);
}

}  // namespace

void ReferenceStream::block_square_sums(const kernels::BlockLayout& layout,
                                        const kernels::RoundedTotal& total, int64_t begin, int64_t end,
                                        double* sums) {
  layout.for_each(begin, end, [&](int64_t index, kernels::BlockLayout::Block block) {
    double sum = 0;
    for (int64_t i = block.offset; i < block.offset + block.count; ++i)
      sum += std::pow(gradient_of(total, index, i), 2);
    sums[index - begin] = sum;
  });
}

void ReferenceStream::adamw(const kernels::AdamW& a, const kernels::BlockLayout& layout,
                            const kernels::RoundedTotal& total, int64_t begin, int64_t end, float* weight,
                            float* moment1, float* moment2) {
  layout.for_each(begin, end, [&](int64_t index, kernels::BlockLayout::Block block) {
    for (int64_t i = block.offset; i < block.offset + block.count; ++i) {
      const double g = gradient_of(total, index, i) * double(a.gradient_scale);
      const double m = double(a.beta1) * double(moment1[i]) + (1 - double(a.beta1)) * g;
      const double v = double(a.beta2) * double(moment2[i]) + (1 - double(a.beta2)) * g * g;
      const double update =
          m / double(a.bias_correction1) / (std::sqrt(v / double(a.bias_correction2)) + double(a.epsilon)) +
          double(a.weight_decay) * double(weight[i]);
      moment1[i] = float(m);
      moment2[i] = float(v);
      weight[i] = float(double(weight[i]) - double(a.learning_rate) * update);
    }
  });
}

}  // namespace troupe::testing
