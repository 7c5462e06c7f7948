// Losses and counts of many slots as integers, which have no order: the same total whoever adds them when.
#pragma once

#include <cstdint>

#include "kernels/backend.hpp"

namespace troupe::model {

struct LossTotals {
  static constexpr double kUnit = 1.0 / (1 << 20);  // nats; a slot's sum is rounded to this once
  static constexpr double kSlotMax = 1 << 30;       // nats; 1024 slots of it fit

  int64_t loss_units = 0;  // smoothed loss
  int64_t nll_units = 0;   // without smoothing
  int64_t tokens = 0;
  int64_t correct = 0;

  // A loss beyond kSlotMax counts as that, and so does one that is no number: what diverges looks bad.
  void add(const kernels::LossSums& slot);
  LossTotals& operator+=(const LossTotals& other);  // saturates, which no sum of 1024 slots can come to
  double mean_loss() const { return tokens == 0 ? 0 : double(loss_units) * kUnit / double(tokens); }
  double mean_nll() const { return tokens == 0 ? 0 : double(nll_units) * kUnit / double(tokens); }
  bool operator==(const LossTotals&) const = default;
};

}  // namespace troupe::model
