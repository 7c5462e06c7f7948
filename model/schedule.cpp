#include "model/schedule.hpp"

#include <algorithm>

#include "kernels/base/det_math.hpp"
#include "kernels/base/error.hpp"

namespace troupe::model {

namespace {

double cosine(const ScheduleConfig& c, int64_t step) {
  const int64_t span = c.total_steps - c.warmup_steps;
  const int64_t done = std::min(step - c.warmup_steps, span);
  const double share = span <= 0 ? 1 : double(done) / double(span);
  return c.floor + (1 - c.floor) * 0.5 * (1 + det::cos(det::kPi * share));
}

double warmup_stable_decay(const ScheduleConfig& c, int64_t step) {
  const int64_t left = std::max<int64_t>(c.total_steps - step, 0);
  if (left >= c.decay_steps) return 1;
  return c.floor + (1 - c.floor) * (double(left) / double(c.decay_steps));
}

}  // namespace

void validate(const ScheduleConfig& c) {
  if (!(c.peak > 0 && c.peak < 1e3))
    throw error(ErrorKind::usage, "schedule.learning_rate is {}; it must be above 0 and below 1000", c.peak);
  if (c.warmup_steps < 0)
    throw error(ErrorKind::usage, "schedule.warmup_steps is {}; it must be 0 or more", c.warmup_steps);
  if (!(c.floor >= 0 && c.floor <= 1))
    throw error(ErrorKind::usage, "schedule.floor is {}; it is a share of the peak, from 0 to 1", c.floor);
  const bool ends = c.kind == ScheduleKind::cosine || c.kind == ScheduleKind::warmup_stable_decay;
  if (ends && c.total_steps <= c.warmup_steps)
    throw error(ErrorKind::usage,
                "schedule.total_steps is {}; this schedule needs more than the {} of warm-up", c.total_steps,
                c.warmup_steps);
  if (c.kind == ScheduleKind::warmup_stable_decay &&
      (c.decay_steps < 0 || c.decay_steps > c.total_steps - c.warmup_steps))
    throw error(ErrorKind::usage,
                "schedule.decay_steps is {}; it must be from 0 to the {} steps after warm-up", c.decay_steps,
                c.total_steps - c.warmup_steps);
}

double learning_rate(const ScheduleConfig& c, int64_t step) {
  if (step < c.warmup_steps) return c.peak * (double(step + 1) / double(c.warmup_steps));
  switch (c.kind) {
    case ScheduleKind::constant:
      return c.peak;
    case ScheduleKind::inverse_square_root:
      return c.peak * det::sqrt(double(std::max<int64_t>(c.warmup_steps, 1)) / double(step + 1));
    case ScheduleKind::cosine:
      return c.peak * cosine(c, step);
    case ScheduleKind::warmup_stable_decay:
      return c.peak * warmup_stable_decay(c, step);
  }
  return c.peak;
}

}  // namespace troupe::model
