#include "model/layers.hpp"

namespace troupe::model {

using kernels::ConstView;
using kernels::View;

namespace {
kernels::FusedActivation activation(const Pass& pass, const Place& place, View pre) {
  return {pass.config.activation,
          pass.dropout(pass.config.activation_dropout, place.side, place.layer, Site::feed_forward_inner),
          pre};
}
}  // namespace

void feed_forward_forward(Pass& pass, const FeedForwardParameters& p, const Place& place, View input,
                          View output, FeedForwardSaved& saved) {
  const int64_t rows = place.tokens.rows();
  const size_t mark = pass.arena.mark();
  saved.input = input;
  saved.inner = pass.take_compute(rows, pass.config.inner);
  saved.activated = pass.take_compute(rows, pass.config.inner);
  pass.stream.linear_activation_forward(input, pass.packed(p.inner.weight), pass.master(p.inner.bias),
                                        activation(pass, place, saved.inner), saved.activated);
  linear_forward(pass, p.outer, saved.activated, output);
  if (!pass.training()) pass.arena.reset(mark);
}

void feed_forward_backward(Pass& pass, const FeedForwardParameters& p, const Place& place,
                           const FeedForwardSaved& saved, ConstView doutput, View dinput) {
  const size_t mark = pass.arena.mark();
  View dinner = pass.take_compute(place.tokens.rows(), pass.config.inner);
  linear_backward(pass, p.outer, saved.activated, doutput, {});
  pass.stream.linear_activation_backward_input(doutput, pass.packed(p.outer.weight),
                                               activation(pass, place, saved.inner), dinner);
  linear_backward(pass, p.inner, saved.input, dinner, dinput);
  pass.arena.reset(mark);
}

}  // namespace troupe::model
