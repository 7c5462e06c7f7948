// Kernels of kernels/cuda/norm.cpp: residual, dropout and norm, a warp a row, eight rows a block, 32 * N
// elements of a row at a time. Pointers may be null where kernels/backend.hpp lets a view be empty; gamma
// without beta going forward, and without mean going backward, is RMS norm, whose mean is zero.
#pragma once

#include "kernels/cuda/device/dropout.hpp"
#include "kernels/cuda/device/math.hpp"

namespace troupe::kernels::device {

constexpr float kNormEpsilon = 1e-5f;

// What both directions share: rows of a block, pieces of a row, and their random words.
template <int N>
struct NormTile {
  static constexpr int kThreads = 256;
  static constexpr int kRows = kThreads / kWarp;
  static constexpr int kPiece = kWarp * N;  // elements of a row at a time
  struct Shared {
    uint32_t words[kRows][words_room(kPiece)];
  };

  int64_t rows = 0, cols = 0;  // cols is a multiple of N
  DropoutRule rule;

  static int64_t blocks(int64_t rows) { return ceil_div(rows, kRows); }

  // f(row, col, words, registers) for each thread and piece of its row; words[i] belongs to element i of its
  // N and may be read when `draws`.
  template <typename Block, typename F>
  TROUPE_DEVICE void for_pieces(Block& block, bool draws, F&& f) const {
    for (int64_t piece = 0; piece < cols; piece += kPiece) {
      const int64_t count = smaller(int64_t{kPiece}, cols - piece);
      if (draws)
        block.each([&](int thread, auto&) {
          const int64_t row = block.index() * kRows + thread / kWarp;
          draw_words(rule.key, uint64_t(row * cols + piece), count, thread % kWarp, kWarp,
                     block.shared().words[thread / kWarp]);
        });
      block.each([&](int thread, auto& own) {
        const int64_t row = block.index() * kRows + thread / kWarp, at = int64_t{thread % kWarp} * N;
        if (row >= rows || at >= count) return;
        const uint32_t* words = block.shared().words[thread / kWarp];
        f(row, piece + at, words + (uint64_t(row * cols + piece) & 63) + at, own);
      });
    }
  }
};

template <typename T, int N>
struct NormForward : NormTile<N> {
  struct Registers {
    float total, squares, mean, rstd;
  };

  Rows<const float> x;
  Rows<const T> y;
  const float* gamma = nullptr;
  const float* beta = nullptr;
  Rows<float> sum;  // may be x
  Rows<T> normed;
  Rows<float> normed_f32;
  float* mean = nullptr;
  float* rstd = nullptr;

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    block.each([&](int, Registers& own) { own.total = own.squares = 0; });
    this->for_pieces(block, !y.empty() && this->rule.drops(),
                     [&](int64_t row, int64_t col, const uint32_t* words, Registers& own) {
                       const float total = add_residual(row, col, words);
                       if (beta != nullptr) own.total += total;
                     });
    if (gamma == nullptr) return;
    const Rows<const float> r = y.empty() ? x : Rows<const float>{sum.data, sum.stride};
    block.warp_sum([](int, Registers& own) -> float& { return own.total; });
    this->for_pieces(block, false, [&](int64_t row, int64_t col, const uint32_t*, Registers& own) {
      own.mean = own.total / float(this->cols);
      float v[N];
      load(r.row(row) + col, v);
      TROUPE_UNROLL for (int i = 0; i < N; ++i) own.squares += (v[i] - own.mean) * (v[i] - own.mean);
    });
    block.warp_sum([](int, Registers& own) -> float& { return own.squares; });
    block.each([&](int thread, Registers& own) {
      own.mean = own.total / float(this->cols);
      own.rstd = 1.0f / square_root(own.squares / float(this->cols) + kNormEpsilon);
      const int64_t row = block.index() * NormTile<N>::kRows + thread / kWarp;
      if (thread % kWarp != 0 || row >= this->rows) return;
      if (mean != nullptr) mean[row] = own.mean;
      if (rstd != nullptr) rstd[row] = own.rstd;
    });
    this->for_pieces(block, false, [&](int64_t row, int64_t col, const uint32_t*, Registers& own) {
      write_normed(r, row, col, own);
    });
  }

  // r = x + dropout(y) into `sum`; returns the sum of the thread's elements of r.
  TROUPE_DEVICE float add_residual(int64_t row, int64_t col, const uint32_t* words) const {
    float r[N], total = 0;
    load(x.row(row) + col, r);
    if (!y.empty()) {
      float v[N];
      load(y.row(row) + col, v);
      TROUPE_UNROLL for (int i = 0; i < N; ++i) r[i] =
          r[i] + v[i] * (this->rule.drops() ? this->rule.factor(words[i]) : this->rule.scale);
    }
    if (!sum.empty() && (!y.empty() || sum.data != x.data)) store(sum.row(row) + col, r);
    TROUPE_UNROLL for (int i = 0; i < N; ++i) total += r[i];
    return total;
  }

  TROUPE_DEVICE void write_normed(const Rows<const float>& r, int64_t row, int64_t col,
                                  const Registers& own) const {
    float v[N], g[N], b[N];
    load(r.row(row) + col, v);
    load(gamma + col, g);
    TROUPE_UNROLL for (int i = 0; i < N; ++i) v[i] = (v[i] - own.mean) * own.rstd * g[i];
    if (beta != nullptr) {
      load(beta + col, b);
      TROUPE_UNROLL for (int i = 0; i < N; ++i) v[i] = v[i] + b[i];
    }
    if (!normed.empty()) store(normed.row(row) + col, v);
    if (!normed_f32.empty()) store(normed_f32.row(row) + col, v);
  }
};

// The gradient of the normed row: dnormed + dnormed_f32.
template <typename T>
struct NormedGradient {
  Rows<const T> dnormed;
  Rows<const float> dnormed_f32;

  template <int N>
  TROUPE_DEVICE void load_sum(int64_t row, int64_t col, float (&g)[N]) const {
    TROUPE_UNROLL for (int i = 0; i < N; ++i) g[i] = 0;
    if (!dnormed.empty()) load(dnormed.row(row) + col, g);
    if (dnormed_f32.empty()) return;
    float more[N];
    load(dnormed_f32.row(row) + col, more);
    TROUPE_UNROLL for (int i = 0; i < N; ++i) g[i] = g[i] + more[i];
  }
};

// d normed / d r: rstd * (g gamma - mean(g gamma) - hat * mean(g gamma hat)), with hat the normalised r.
// RMS norm has no mean(g gamma). dgamma and dbeta are column sums: NormColumns below.
template <typename T, int N>
struct NormBackward : NormTile<N> {
  struct Registers {
    float sum_g, sum_gh;
  };

  NormedGradient<T> gradient;
  Rows<const float> dsum_in;
  Rows<const float> sum;
  const float* gamma = nullptr;
  const float* mean = nullptr;
  const float* rstd = nullptr;
  Rows<float> dsum;  // may be dsum_in
  Rows<T> dy;

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    block.each([&](int, Registers& own) { own.sum_g = own.sum_gh = 0; });
    if (gamma != nullptr) {
      this->for_pieces(block, false, [&](int64_t row, int64_t col, const uint32_t*, Registers& own) {
        float g[N], hat[N];
        scaled_gradient(row, col, g, hat);
        TROUPE_UNROLL for (int i = 0; i < N; ++i) {
          if (mean != nullptr) own.sum_g += g[i];
          own.sum_gh += g[i] * hat[i];
        }
      });
      block.warp_sum([](int, Registers& own) -> float& { return own.sum_g; });
      block.warp_sum([](int, Registers& own) -> float& { return own.sum_gh; });
    }
    this->for_pieces(block, !dy.empty() && this->rule.drops(),
                     [&](int64_t row, int64_t col, const uint32_t* words, Registers& own) {
                       write_gradients(row, col, words, own);
                     });
  }

  TROUPE_DEVICE void scaled_gradient(int64_t row, int64_t col, float (&g)[N], float (&hat)[N]) const {
    float scale[N];
    gradient.load_sum(row, col, g);
    load(sum.row(row) + col, hat);
    load(gamma + col, scale);
    const float centre = mean == nullptr ? 0 : mean[row];
    TROUPE_UNROLL for (int i = 0; i < N; ++i) {
      hat[i] = (hat[i] - centre) * rstd[row];
      g[i] = g[i] * scale[i];
    }
  }

  TROUPE_DEVICE void write_gradients(int64_t row, int64_t col, const uint32_t* words,
                                     const Registers& own) const {
    float d[N];
    TROUPE_UNROLL for (int i = 0; i < N; ++i) d[i] = 0;
    if (!dsum_in.empty()) load(dsum_in.row(row) + col, d);
    if (gamma != nullptr) {
      float g[N], hat[N];
      const float mean_g = own.sum_g / float(this->cols), mean_gh = own.sum_gh / float(this->cols);
      scaled_gradient(row, col, g, hat);
      TROUPE_UNROLL for (int i = 0; i < N; ++i) d[i] = d[i] + (g[i] - mean_g - hat[i] * mean_gh) * rstd[row];
    }
    if (!dsum.empty()) store(dsum.row(row) + col, d);
    if (dy.empty()) return;
    TROUPE_UNROLL for (int i = 0; i < N; ++i) d[i] =
        d[i] * (this->rule.drops() ? this->rule.factor(words[i]) : this->rule.scale);
    store(dy.row(row) + col, d);
  }
};

// What column_sums.hpp adds up for dgamma (first) and dbeta (second).
template <typename T>
struct NormColumns {
  static constexpr int kSums = 2;
  NormedGradient<T> gradient;
  Rows<const float> sum;
  const float* mean = nullptr;
  const float* rstd = nullptr;

  template <int N>
  TROUPE_DEVICE void add(int64_t row, int64_t col, float (&sums)[kSums][N]) const {
    float g[N], hat[N];
    gradient.load_sum(row, col, g);
    load(sum.row(row) + col, hat);
    const float centre = mean == nullptr ? 0 : mean[row];
    TROUPE_UNROLL for (int i = 0; i < N; ++i) {
      hat[i] = (hat[i] - centre) * rstd[row];
      sums[0][i] += g[i] * hat[i];
      sums[1][i] += g[i];
    }
  }
};

}  // namespace troupe::kernels::device
