#include "model/layers.hpp"

namespace troupe::model {

const NormParameters& norm_after(const Pass& pass, const NormParameters& own,
                                 const NormParameters& following) {
  return pass.config.norm == NormPlacement::pre ? following : own;
}

namespace {

kernels::Dropout output_dropout(const Pass& pass, const Place& place, Site site) {
  return pass.dropout(pass.config.dropout, place.side, place.layer, site);
}

}  // namespace

void encoder_layer_forward(Pass& pass, const EncoderLayerParameters& p, const NormParameters& next,
                           const Place& place, Flow& flow, EncoderLayerSaved& saved) {
  self_attention_forward(pass, p.self_attention, place, flow.input, flow.output, saved.self_attention);
  residual_forward(pass, norm_after(pass, p.self_attention_norm, p.feed_forward_norm),
                   output_dropout(pass, place, Site::self_attention), flow, saved.after_self_attention);
  feed_forward_forward(pass, p.feed_forward, place, flow.input, flow.output, saved.feed_forward);
  residual_forward(pass, norm_after(pass, p.feed_forward_norm, next),
                   output_dropout(pass, place, Site::feed_forward), flow, saved.after_feed_forward);
}

void encoder_layer_backward(Pass& pass, const EncoderLayerParameters& p, const NormParameters& next,
                            const Place& place, const EncoderLayerSaved& saved, FlowGradient& gradient) {
  residual_backward(pass, norm_after(pass, p.feed_forward_norm, next),
                    output_dropout(pass, place, Site::feed_forward), saved.after_feed_forward, gradient);
  feed_forward_backward(pass, p.feed_forward, place, saved.feed_forward, gradient.output, gradient.input);
  residual_backward(pass, norm_after(pass, p.self_attention_norm, p.feed_forward_norm),
                    output_dropout(pass, place, Site::self_attention), saved.after_self_attention, gradient);
  self_attention_backward(pass, p.self_attention, place, saved.self_attention, gradient.output,
                          gradient.input);
}

void decoder_layer_forward(Pass& pass, const DecoderLayerParameters& p, const NormParameters& next,
                           const Place& place, const DecoderContext& context, Flow& flow,
                           DecoderLayerSaved& saved) {
  const bool crosses = context.memory != nullptr;
  self_attention_forward(pass, p.self_attention, place, flow.input, flow.output, saved.self_attention);
  residual_forward(
      pass, norm_after(pass, p.self_attention_norm, crosses ? *p.cross_attention_norm : p.feed_forward_norm),
      output_dropout(pass, place, Site::self_attention), flow, saved.after_self_attention);
  if (crosses) {
    cross_attention_forward(pass, *p.cross_attention, place, *context.memory, flow.input, flow.output,
                            saved.cross_attention);
    residual_forward(pass, norm_after(pass, *p.cross_attention_norm, p.feed_forward_norm),
                     output_dropout(pass, place, Site::cross_attention), flow, saved.after_cross_attention);
  }
  feed_forward_forward(pass, p.feed_forward, place, flow.input, flow.output, saved.feed_forward);
  residual_forward(pass, norm_after(pass, p.feed_forward_norm, next),
                   output_dropout(pass, place, Site::feed_forward), flow, saved.after_feed_forward);
}

void decoder_layer_backward(Pass& pass, const DecoderLayerParameters& p, const NormParameters& next,
                            const Place& place, const DecoderContext& context, const DecoderLayerSaved& saved,
                            FlowGradient& gradient) {
  const bool crosses = context.memory != nullptr;
  residual_backward(pass, norm_after(pass, p.feed_forward_norm, next),
                    output_dropout(pass, place, Site::feed_forward), saved.after_feed_forward, gradient);
  feed_forward_backward(pass, p.feed_forward, place, saved.feed_forward, gradient.output, gradient.input);
  if (crosses) {
    residual_backward(pass, norm_after(pass, *p.cross_attention_norm, p.feed_forward_norm),
                      output_dropout(pass, place, Site::cross_attention), saved.after_cross_attention,
                      gradient);
    cross_attention_backward(
        pass, *p.cross_attention, place, *context.memory, saved.cross_attention,
        {gradient.output, gradient.input, context.memory_gradient, context.accumulate_memory});
  }
  residual_backward(
      pass, norm_after(pass, p.self_attention_norm, crosses ? *p.cross_attention_norm : p.feed_forward_norm),
      output_dropout(pass, place, Site::self_attention), saved.after_self_attention, gradient);
  self_attention_backward(pass, p.self_attention, place, saved.self_attention, gradient.output,
                          gradient.input);
}

}  // namespace troupe::model
