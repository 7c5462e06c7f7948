#include "model/loss_totals.hpp"

namespace troupe::model {

namespace {
int64_t to_units(double nats) {
  constexpr double kLossMax = double(int64_t{1} << 40);
  if (!(nats > -kLossMax && nats < kLossMax)) return 0;
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
