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
}  // namespace

void LossTotals::add(const kernels::LossSums& slot) {
  loss_units += to_units(slot.loss);
  nll_units += to_units(slot.nll);
  tokens += slot.tokens;
  correct += slot.correct;
}

LossTotals& LossTotals::operator+=(const LossTotals& other) {
  loss_units += other.loss_units;
  nll_units += other.nll_units;
  tokens += other.tokens;
  correct += other.correct;
  return *this;
}

}  // namespace troupe::model
