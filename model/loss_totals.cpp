#include "model/loss_totals.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::model {

namespace {
int64_t to_units(double nats) {
  nats =
      std::isnan(nats) ? LossTotals::kSlotMax : std::clamp(nats, -LossTotals::kSlotMax, LossTotals::kSlotMax);
  const double units = nats / LossTotals::kUnit;  // a power of two: exact
  return int64_t(units < 0 ? units - 0.5 : units + 0.5);
}

// At the end of what 64 bits hold it stays: sums of that many slots that have diverged look bad too.
void add_to(int64_t& sum, int64_t units) {
  if (__builtin_add_overflow(sum, units, &sum)) sum = units < 0 ? INT64_MIN : INT64_MAX;
}

}  // namespace

void LossTotals::add(const kernels::LossSums& slot) {
  add_to(loss_units, to_units(slot.loss));
  add_to(nll_units, to_units(slot.nll));
  tokens += slot.tokens;
  correct += slot.correct;
}

LossTotals& LossTotals::operator+=(const LossTotals& other) {
  add_to(loss_units, other.loss_units);
  add_to(nll_units, other.nll_units);
  tokens += other.tokens;
  correct += other.correct;
  return *this;
}

}  // namespace troupe::model
