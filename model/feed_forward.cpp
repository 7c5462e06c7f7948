#include "model/layers.hpp"

namespace troupe::model {

using kernels::ConstView;
using kernels::Dropout;
using kernels::View;

namespace {
Dropout inner_dropout(const Pass& pass, const Place& place) {
  return pass.dropout(pass.config.activation_dropout, place.side, place.layer, Site::feed_forward_inner);
}
}  // namespace

void feed_forward_forward(Pass& pass, const FeedForwardParameters& p, const Place& place, View input,
                          View output, FeedForwardSaved& saved) {
  const int64_t rows = place.tokens.rows();
  const size_t mark = pass.arena.mark();
  saved.input = input;
  saved.inner = pass.take_compute(rows, pass.config.inner);
  saved.activated = pass.take_compute(rows, pass.config.inner);
  linear_forward(pass, p.inner, input, saved.inner);
  pass.stream.activation_forward(pass.config.activation, saved.inner, inner_dropout(pass, place),
                                 saved.activated);
  linear_forward(pass, p.outer, saved.activated, output);
  if (!pass.training()) pass.arena.reset(mark);
}

void feed_forward_backward(Pass& pass, const FeedForwardParameters& p, const Place& place,
                           const FeedForwardSaved& saved, ConstView doutput, View dinput) {
  const size_t mark = pass.arena.mark();
  View dinner = pass.take_compute(place.tokens.rows(), pass.config.inner);
  linear_backward(pass, p.outer, saved.activated, doutput, dinner);
  pass.stream.activation_backward(pass.config.activation, saved.inner, inner_dropout(pass, place), dinner,
                                  dinner);
  linear_backward(pass, p.inner, saved.input, dinner, dinput);
  pass.arena.reset(mark);
}

}  // namespace troupe::model
