#include "model/schedule.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "kernels/base/error.hpp"

using namespace troupe;
using namespace troupe::model;

namespace {

ScheduleConfig schedule(ScheduleKind kind) {
  ScheduleConfig c;
  c.kind = kind;
  c.peak = 2.0;
  c.warmup_steps = 4;
  c.total_steps = 20;
  c.decay_steps = 8;
  c.floor = 0.1;
  return c;
}

struct Point {
  int64_t step;
  double rate;
};

void check_points(const ScheduleConfig& config, const std::vector<Point>& points) {
  for (const Point& point : points) {
    CAPTURE(point.step);
    CHECK(learning_rate(config, point.step) == doctest::Approx(point.rate).epsilon(1e-12));
  }
}

}  // namespace

TEST_CASE("every schedule rises linearly to its peak") {
  for (auto kind : {ScheduleKind::constant, ScheduleKind::inverse_square_root, ScheduleKind::cosine,
                    ScheduleKind::warmup_stable_decay})
    check_points(schedule(kind), {{0, 0.5}, {1, 1.0}, {2, 1.5}, {3, 2.0}});
}

TEST_CASE("after the warm-up each schedule follows its formula") {
  check_points(schedule(ScheduleKind::constant), {{4, 2.0}, {1000000, 2.0}});
  // peak * sqrt(warmup / (step + 1))
  check_points(schedule(ScheduleKind::inverse_square_root),
               {{4, 1.7888543819998317}, {15, 1.0}, {63, 0.5}, {399, 0.2}});
  // floor + (1 - floor) (1 + cos(pi share)) / 2
  check_points(
      schedule(ScheduleKind::cosine),
      {{4, 2.0}, {8, 1.7363961030678928}, {12, 1.1}, {16, 0.4636038969321072}, {20, 0.2}, {500, 0.2}});
  check_points(schedule(ScheduleKind::warmup_stable_decay),
               {{4, 2.0}, {12, 2.0}, {13, 1.775}, {16, 1.1}, {19, 0.425}, {20, 0.2}, {500, 0.2}});
}

TEST_CASE("no warm-up starts at the peak") {
  for (auto kind : {ScheduleKind::constant, ScheduleKind::inverse_square_root, ScheduleKind::cosine}) {
    ScheduleConfig config = schedule(kind);
    config.warmup_steps = 0;
    CHECK(learning_rate(config, 0) == doctest::Approx(2.0));
  }
}

TEST_CASE("a schedule that makes no sense is refused with the setting's name") {
  ScheduleConfig config = schedule(ScheduleKind::cosine);
  config.total_steps = 4;
  CHECK_THROWS_WITH_AS(validate(config),
                       "schedule.total_steps is 4; this schedule needs more than the 4 of warm-up", Error);
  config = schedule(ScheduleKind::warmup_stable_decay);
  config.decay_steps = 17;
  CHECK_THROWS_WITH_AS(validate(config),
                       "schedule.decay_steps is 17; it must be from 0 to the 16 steps after warm-up", Error);
  config = schedule(ScheduleKind::constant);
  config.peak = 0;
  CHECK_THROWS_AS(validate(config), Error);
  config = schedule(ScheduleKind::constant);
  config.warmup_steps = -1;
  CHECK_THROWS_AS(validate(config), Error);
  config = schedule(ScheduleKind::constant);
  config.floor = 1.5;
  CHECK_THROWS_AS(validate(config), Error);
  CHECK_NOTHROW(validate(schedule(ScheduleKind::cosine)));
}
