// How a model is trained: optimizer, learning-rate schedule, loss. Plain values, read from a job file by actors/.
#pragma once

#include <cstdint>

namespace troupe::model {

enum class ScheduleKind : uint8_t { constant = 1, inverse_sqrt, cosine, warmup_stable_decay };

struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::inverse_sqrt;
  double learning_rate = 1e-3;     // the peak, reached at the end of the warm-up
  int64_t warmup_steps = 400;      // linear from 0
  int64_t total_steps = 0;         // where cosine and warmup_stable_decay end; 0: the job's steps
  int64_t decay_steps = 0;         // of warmup_stable_decay: how many steps before total_steps the decay begins; 0: a fifth
  double floor = 0.1;              // cosine and decay end at floor * learning_rate
};

struct OptimizerConfig {
  double beta1 = 0.9;
  double beta2 = 0.98;
  double epsilon = 1e-9;
  double weight_decay = 0.01;      // decoupled; biases and norms do not decay
  double clip_norm = 1.0;          // of the mean gradient a target token; 0: no clipping
  double label_smoothing = 0.1;
  ScheduleConfig schedule;
};

}  // namespace troupe::model
