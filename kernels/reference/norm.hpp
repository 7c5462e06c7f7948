// The plain form of norm.cpp, one row in double. For tests, and to read.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace troupe::kernels::reference {

struct Moments {
  double mean = 0;
  double rstd = 0;
};

inline Moments moments(std::span<const double> r) {
  Moments m;
  for (double v : r) m.mean += v / double(r.size());
  double variance = 0;
  for (double v : r) variance += (v - m.mean) * (v - m.mean) / double(r.size());
  m.rstd = 1 / std::sqrt(variance + 1e-5);
  return m;
}

inline std::vector<double> layer_norm(std::span<const double> r, std::span<const float> gamma,
                                      std::span<const float> beta) {
  const Moments m = moments(r);
  std::vector<double> out(r.size());
  for (size_t i = 0; i < r.size(); ++i)
    out[i] = double(gamma[i]) * (r[i] - m.mean) * m.rstd + double(beta[i]);
  return out;
}

// The gradient of r from the gradient g of the normed row; adds this row's part to dgamma and dbeta.
inline std::vector<double> layer_norm_backward(std::span<const double> r, std::span<const float> gamma,
                                               std::span<const double> g, std::span<double> dgamma,
                                               std::span<double> dbeta) {
  const Moments m = moments(r);
  const double count = double(r.size());
  double mean_g = 0, mean_gh = 0;
  for (size_t i = 0; i < r.size(); ++i) {
    const double hat = (r[i] - m.mean) * m.rstd;
    dgamma[i] += g[i] * hat;
    dbeta[i] += g[i];
    mean_g += g[i] * double(gamma[i]) / count;
    mean_gh += g[i] * double(gamma[i]) * hat / count;
  }
  std::vector<double> dr(r.size());
  for (size_t i = 0; i < r.size(); ++i)
    dr[i] = (g[i] * double(gamma[i]) - mean_g - (r[i] - m.mean) * m.rstd * mean_gh) * m.rstd;
  return dr;
}

inline double inverse_root_mean_square(std::span<const double> r) {
  double mean = 0;
  for (double v : r) mean += v * v / double(r.size());
  return 1 / std::sqrt(mean + 1e-5);
}

inline std::vector<double> rms_norm(std::span<const double> r, std::span<const float> gamma) {
  const double rrms = inverse_root_mean_square(r);
  std::vector<double> out(r.size());
  for (size_t i = 0; i < r.size(); ++i) out[i] = double(gamma[i]) * r[i] * rrms;
  return out;
}

inline std::vector<double> rms_norm_backward(std::span<const double> r, std::span<const float> gamma,
                                             std::span<const double> g, std::span<double> dgamma) {
  const double rrms = inverse_root_mean_square(r);
  double mean_gh = 0;
  for (size_t i = 0; i < r.size(); ++i) {
    dgamma[i] += g[i] * r[i] * rrms;
    mean_gh += g[i] * double(gamma[i]) * r[i] * rrms / double(r.size());
  }
  std::vector<double> dr(r.size());
  for (size_t i = 0; i < r.size(); ++i) dr[i] = (g[i] * double(gamma[i]) - r[i] * rrms * mean_gh) * rrms;
  return dr;
}

}  // namespace troupe::kernels::reference
