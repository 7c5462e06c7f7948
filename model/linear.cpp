#include "kernels/base/random.hpp"
#include "model/layers.hpp"

namespace troupe::model {

using kernels::ConstView;
using kernels::View;

ConstView Pass::master(size_t index) const {
  const Parameter& p = table.all()[index];
  return kernels::view_of(weights.master_of(index, p), p.rows, p.cols);
}

kernels::PackedWeight Pass::packed(size_t index) const {
  TROUPE_CHECK(weights.packed != nullptr && index < weights.packed->size(), "weights are not packed");
  return (*weights.packed)[index];
}

kernels::Dropout Pass::dropout(float rate, Side side, int64_t layer, Site site) const {
  if (!training() || rate == 0) return {};
  const uint64_t place = (uint64_t(side) << 40) | (uint64_t(layer) << 8) | uint64_t(site);
  return {rate, mix64(mix64(mix64(key.seed, uint64_t(key.step)), key.slot), place)};
}

void Pass::fold(size_t index, ConstView gradient) {
  const Parameter& p = table.all()[index];
  TROUPE_CHECK(gradient.cols == p.cols && gradient.rows <= p.rows, "gradient of {} is ({}, {})", p.name,
               gradient.rows, gradient.cols);
  sink->fold(p.offset, gradient);
}

void Pass::whole_from(size_t index) const {
  sink->whole_from(table.all()[index].offset);
}

void linear_forward(Pass& pass, const LinearParameters& p, ConstView x, View y) {
  pass.stream.linear_forward(x, pass.packed(p.weight), pass.master(p.bias), y);
}

void linear_backward(Pass& pass, const LinearParameters& p, ConstView x, ConstView dy, View dx,
                     bool accumulate) {
  const size_t mark = pass.arena.mark();
  View dw = pass.take_f32(dy.cols, x.cols);
  View dbias = pass.take_f32(1, dy.cols);
  pass.stream.linear_backward_weight(dy, x, dw, dbias);
  pass.fold(p.bias, dbias);
  pass.fold(p.weight, dw);
  pass.arena.reset(mark);
  if (!dx.empty()) pass.stream.linear_backward_input(dy, pass.packed(p.weight), dx, accumulate);
}

}  // namespace troupe::model
