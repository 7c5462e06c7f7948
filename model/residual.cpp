#include <utility>

#include "model/layers.hpp"

namespace troupe::model {

using kernels::ConstView;
using kernels::Dropout;
using kernels::ResidualNorm;
using kernels::ResidualNormGrad;
using kernels::View;

namespace {

bool pre_norm(const Pass& pass) {
  return pass.config.norm == NormPlacement::pre;
}
bool layer_norm(const Pass& pass) {
  return pass.config.norm_kind == kernels::NormKind::layer;
}
bool computes_f32(const Pass& pass) {
  return pass.config.compute == kernels::DType::f32;
}

// Sets the outputs of the norm that follows flow.residual and moves the flow on to them.
void norm_outputs(Pass& pass, Flow& flow, NormSaved& saved, ResidualNorm& args) {
  const int64_t rows = flow.residual.rows, width = flow.residual.cols;
  const bool keep = pass.training();
  if (layer_norm(pass)) args.mean = saved.mean = keep ? pass.take_f32(1, rows) : flow.mean;
  args.rstd = saved.rstd = keep ? pass.take_f32(1, rows) : flow.rstd;
  if (pre_norm(pass)) {
    flow.residual = saved.sum;
    flow.input = args.normed = keep ? pass.take_compute(rows, width) : flow.input;
    return;
  }
  View next = keep ? pass.take_f32(rows, width) : flow.spare;
  flow.spare = saved.sum;
  flow.residual = args.normed_f32 = next;
  if (computes_f32(pass))
    flow.input = next;
  else
    flow.input = args.normed = keep ? pass.take_compute(rows, width) : flow.input;
}

void norm_parameters(const Pass& pass, const NormParameters& norm, ResidualNorm& args) {
  args.kind = pass.config.norm_kind;
  args.gamma = pass.master(norm.gamma);
  if (norm.beta) args.beta = pass.master(*norm.beta);
}

}  // namespace

Flow begin_flow(Pass& pass, const NormParameters& first, View embedded, NormSaved& saved) {
  const int64_t rows = embedded.rows, width = embedded.cols;
  Flow flow;
  flow.residual = embedded;
  flow.output = pass.take_compute(rows, width);
  const bool keep = pass.training();
  if (!keep) {
    if (layer_norm(pass)) flow.mean = pass.take_f32(1, rows);
    flow.rstd = pass.take_f32(1, rows);
    if (!pre_norm(pass)) flow.spare = pass.take_f32(rows, width);
  }
  if (!pre_norm(pass)) {
    flow.input = computes_f32(pass) ? embedded : pass.take_compute(rows, width);
    if (!computes_f32(pass)) pass.stream.convert(embedded, flow.input);
    return flow;
  }
  if (!keep) flow.input = pass.take_compute(rows, width);
  ResidualNorm args;
  args.x = embedded;
  norm_parameters(pass, first, args);
  saved.sum = embedded;
  norm_outputs(pass, flow, saved, args);
  pass.stream.residual_norm_forward(args);
  return flow;
}

void residual_forward(Pass& pass, const NormParameters& norm, const Dropout& dropout, Flow& flow,
                      NormSaved& saved) {
  ResidualNorm args;
  args.x = flow.residual;
  args.y = flow.output;
  args.dropout = dropout;
  norm_parameters(pass, norm, args);
  args.sum = saved.sum =
      pass.training() ? pass.take_f32(flow.residual.rows, flow.residual.cols) : flow.residual;
  norm_outputs(pass, flow, saved, args);
  pass.stream.residual_norm_forward(args);
}

FlowGradient begin_flow_gradient(Pass& pass, int64_t rows) {
  FlowGradient gradient;
  gradient.residual = pass.take_f32(rows, pass.config.width);
  gradient.input = pass.take_compute(rows, pass.config.width);
  gradient.output = pass.take_compute(rows, pass.config.width);
  if (!pre_norm(pass)) gradient.spare = pass.take_f32(rows, pass.config.width);
  return gradient;
}

namespace {

// The backward pass of one sum and norm; `dropout` null where there was no sum.
void norm_backward(Pass& pass, const NormParameters& norm, const Dropout* dropout, const NormSaved& saved,
                   FlowGradient& gradient) {
  const size_t mark = pass.arena.mark();
  ResidualNormGrad args;
  if (gradient.top.empty())
    args.dnormed = gradient.input;
  else
    args.dnormed_f32 = gradient.top;
  args.kind = pass.config.norm_kind;
  args.sum = saved.sum;
  args.gamma = pass.master(norm.gamma);
  args.mean = saved.mean;
  args.rstd = saved.rstd;
  if (pre_norm(pass)) {
    if (gradient.has_residual) args.dsum_in = gradient.residual;
    args.dsum = gradient.residual;
  } else {
    if (gradient.has_residual) args.dnormed_f32 = gradient.residual;
    args.dsum = gradient.spare;
    std::swap(gradient.spare, gradient.residual);
  }
  if (dropout != nullptr) {
    args.dropout = *dropout;
    args.dy = gradient.output;
  }
  args.dgamma = pass.take_f32(1, pass.config.width);
  if (norm.beta) args.dbeta = pass.take_f32(1, pass.config.width);
  pass.stream.residual_norm_backward(args);
  if (norm.beta) pass.fold(*norm.beta, args.dbeta);
  pass.fold(norm.gamma, args.dgamma);
  gradient.top = {};
  gradient.has_residual = true;
  pass.arena.reset(mark);
}

}  // namespace

void residual_backward(Pass& pass, const NormParameters& norm, const Dropout& dropout, const NormSaved& saved,
                       FlowGradient& gradient) {
  norm_backward(pass, norm, &dropout, saved, gradient);
}

ConstView end_flow_gradient(Pass& pass, const NormParameters& first, const NormSaved& saved,
                            FlowGradient& gradient) {
  if (pre_norm(pass)) {
    norm_backward(pass, first, nullptr, saved, gradient);
    return gradient.residual;
  }
  View input = gradient.input;
  if (!computes_f32(pass)) {
    input = gradient.spare;
    pass.stream.convert(gradient.input, input);
  }
  pass.stream.add(input, gradient.residual);
  return gradient.residual;
}

}  // namespace troupe::model
