#include "kernels/base/det_math.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <doctest/doctest.h>

#include "kernels/base/hash.hpp"
#include "kernels/base/random.hpp"

using namespace troupe;

namespace {

// Uniform in [low, high).
double uniform(uint64_t index, double low, double high) {
  const auto words = philox_from(11)(index);
  return low + (high - low) * (double(words[0]) * 0x1p-32 + double(words[1]) * 0x1p-64);
}

constexpr uint64_t kSamples = 200'000;

}  // namespace

TEST_CASE("exp and log agree with libm to 1e-15 relative") {
  double exp_worst = 0, log_worst = 0;
  for (uint64_t i = 0; i < kSamples; ++i) {
    const double x = uniform(i, -700, 700);
    exp_worst = std::max(exp_worst, std::abs(det::exp(x) / std::exp(x) - 1));
    const double y = std::exp(uniform(i, i % 2 == 0 ? -700 : -1, i % 2 == 0 ? 700 : 1));
    log_worst = std::max(log_worst, std::abs(det::log(y) - std::log(y)) / std::abs(std::log(y)));
  }
  CHECK(exp_worst < 1e-15);
  CHECK(log_worst < 1e-15);
}

TEST_CASE("sin and cos agree with libm to 1e-15 absolute, also far from zero") {
  double near_worst = 0, far_worst = 0;
  for (uint64_t i = 0; i < kSamples; ++i) {
    const double x = uniform(i, -10, 10), y = uniform(i, -1e6, 1e6);
    near_worst =
        std::max({near_worst, std::abs(det::sin(x) - std::sin(x)), std::abs(det::cos(x) - std::cos(x))});
    far_worst =
        std::max({far_worst, std::abs(det::sin(y) - std::sin(y)), std::abs(det::cos(y) - std::cos(y))});
  }
  CHECK(near_worst < 1e-15);
  CHECK(far_worst < 1e-15);
}

TEST_CASE("the edges of exp, log, sine and power are where they belong") {
  CHECK(det::exp(0) == 1);
  CHECK(det::exp(710) == HUGE_VAL);
  CHECK(det::exp(-1000) == 0);
  CHECK(std::abs(det::exp(709.7) / std::exp(709.7) - 1) < 1e-15);
  CHECK(det::log(1) == 0);
  CHECK(det::log(0) == -HUGE_VAL);
  CHECK(std::isnan(det::log(-1)));
  CHECK(det::log(1e-310) == -HUGE_VAL);
  CHECK(std::abs(det::log(0x1p-1022) / std::log(0x1p-1022) - 1) < 1e-15);
  CHECK(det::pow(0.5, 1030) == 0);
  CHECK(det::sin(0) == 0);
  CHECK(det::cos(0) == 1);
  CHECK(std::isnan(det::sin(1e9)));
  CHECK(std::isnan(det::exp(NAN)));
  CHECK(det::pow(0.5, 3) == 0.125);
  CHECK(det::pow(2, -2) == 0.25);
  CHECK(det::pow(7, 0) == 1);
  CHECK(det::pow(0.9, 1'000'000) == doctest::Approx(0));
  CHECK(std::abs(det::pow(0.999, 4000) / std::pow(0.999, 4000) - 1) < 1e-12);
  CHECK(det::sqrt(2) == std::sqrt(2.0));
}

TEST_CASE("normal numbers have the moments of the normal distribution") {
  const Philox philox = philox_from(5);
  double sum = 0, squares = 0, fourth = 0;
  for (uint64_t i = 0; i < kSamples; ++i) {
    const auto w = philox(i);
    for (double z : det::normal_pair(uint64_t(w[0]) << 32 | w[1], uint64_t(w[2]) << 32 | w[3])) {
      sum += z;
      squares += z * z;
      fourth += z * z * z * z;
    }
  }
  const double n = 2 * double(kSamples);
  CHECK(std::abs(sum / n) < 0.01);
  CHECK(std::abs(squares / n - 1) < 0.01);
  CHECK(std::abs(fourth / n - 3) < 0.1);
  CHECK(std::isfinite(det::normal_pair(0, 0)[0]));
  CHECK(std::isfinite(det::normal_pair(~0ull, ~0ull)[1]));
}

TEST_CASE("elementary functions give the bits that were recorded when they were written") {
  Sha256 hash;
  const auto add = [&](double value) { hash.update(&value, sizeof value); };
  for (uint64_t i = 0; i < 1000; ++i) {
    add(det::exp(uniform(i, -50, 50)));
    add(det::log(uniform(i, 1e-9, 1e9)));
    add(det::sin(uniform(i, -1e4, 1e4)));
    add(det::cos(uniform(i, -1e4, 1e4)));
    add(det::pow(uniform(i, 0.9, 1), int64_t(i)));
    add(det::normal_pair(mix64(i, 1), mix64(i, 2))[0]);
  }
  CHECK(hash.hex().substr(0, 16) == "6cb9f97172d5aef7");
}
