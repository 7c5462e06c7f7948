// The learning rate as a pure function of the step: the same bits on every machine (no libm, no state).
#pragma once

#include <cstdint>

namespace troupe::model {

enum class ScheduleKind : uint8_t { constant = 1, inverse_square_root, cosine, warmup_stable_decay };

// Every kind rises linearly to `peak` over `warmup_steps` (step s, counted from 0, gets peak * (s + 1) /
// warmup).
struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::inverse_square_root;
  double peak = 1e-3;
  int64_t warmup_steps = 400;
  int64_t total_steps = 0;  // cosine, warmup_stable_decay: the rate reaches its floor here and stays
  int64_t decay_steps = 0;  // warmup_stable_decay: linear descent over this many steps before total_steps
  double floor = 0;         // cosine, warmup_stable_decay: the lowest rate as a share of peak

  bool operator==(const ScheduleConfig&) const = default;
};

// Throws Error(usage) naming the setting, its value and what would be right.
void validate(const ScheduleConfig& config);

// Of the update made at the end of step `step` (counted from 0). REQUIRES a valid config, step >= 0.
double learning_rate(const ScheduleConfig& config, int64_t step);

}  // namespace troupe::model
