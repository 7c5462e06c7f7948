#include "model/config.hpp"

#include "kernels/base/error.hpp"

namespace troupe::model {

namespace {

void require(bool good, const char* name, int64_t value, const char* right) {
  if (!good) throw error(ErrorKind::usage, "model.{} is {}; it must be {}", name, value, right);
}

void require_rate(const char* name, float rate) {
  if (!(rate >= 0 && rate < 1))
    throw error(ErrorKind::usage, "model.{} is {}; it must be at least 0 and below 1", name, rate);
}

// A file may hold any number.
template <typename Choice>
void require_choice(const char* name, Choice value, Choice last) {
  require(uint8_t(value) >= 1 && value <= last, name, int64_t(value), "one of its choices");
}

}  // namespace

void validate(const ModelConfig& c) {
  require_choice("family", c.family, Family::decoder);
  require_choice("norm", c.norm, NormPlacement::post);
  require_choice("norm_kind", c.norm_kind, kernels::NormKind::rms);
  require_choice("positions", c.positions, Positions::rotary);
  require_choice("activation", c.activation, kernels::Activation::gelu);
  require_choice("products", c.products, Products::tf32);
  require(c.vocabulary >= 4 && c.vocabulary <= (1 << 22), "vocabulary", c.vocabulary,
          "between 4 and 4194304");
  require(c.width >= 1 && c.width <= 65536, "width", c.width, "between 1 and 65536");
  require(c.inner >= 1 && c.inner <= 262144, "inner", c.inner, "between 1 and 262144");
  require(c.heads >= 1 && c.heads <= c.width, "heads", c.heads, "at least 1 and at most model.width");
  if (c.width % c.heads != 0)
    throw error(ErrorKind::usage,
                "model.heads is {}, which does not divide model.width {}; choose heads that do", c.heads,
                c.width);
  static_assert(kLayersMax == 64, "as the messages say");
  if (c.family == Family::decoder)
    require(c.encoder_layers == 0, "encoder_layers", c.encoder_layers, "0 in a decoder-only model");
  else
    require(c.encoder_layers >= 1 && c.encoder_layers <= kLayersMax, "encoder_layers", c.encoder_layers,
            "between 1 and 64");
  require(c.decoder_layers >= 1 && c.decoder_layers <= kLayersMax, "decoder_layers", c.decoder_layers,
          "between 1 and 64");
  require(c.max_length >= 1 && c.max_length <= 65536, "max_length", c.max_length, "between 1 and 65536");
  if (c.positions == Positions::sinusoidal)
    require(c.width % 2 == 0, "width", c.width, "even with sinusoidal positions");
  if (c.positions == Positions::rotary)
    require(c.width / c.heads % 2 == 0, "width / model.heads", c.width / c.heads,
            "even with rotary positions");
  require_rate("dropout", c.dropout);
  require_rate("attention_dropout", c.attention_dropout);
  require_rate("activation_dropout", c.activation_dropout);
  if (c.compute != kernels::DType::f32 && c.compute != kernels::DType::bf16)
    throw error(ErrorKind::usage, "model.compute is {}; it must be f32 or bf16",
                kernels::to_string(c.compute));
  if (c.products == Products::fp8 && c.compute != kernels::DType::bf16)
    throw error(ErrorKind::usage, "model.products is fp8, which needs model.compute bf16, not {}",
                kernels::to_string(c.compute));
  if (c.products == Products::tf32 && c.compute != kernels::DType::f32)
    throw error(ErrorKind::usage, "model.products is tf32, which needs model.compute f32, not {}",
                kernels::to_string(c.compute));
  for (const auto& [name, id] :
       {std::pair{"pad_id", c.pad_id}, {"unk_id", c.unk_id}, {"bos_id", c.bos_id}, {"eos_id", c.eos_id}})
    require(id >= 0 && id < c.vocabulary, name, id, "a token id: at least 0 and below model.vocabulary");
}

ModelConfig gpt2_config(int64_t layers, int64_t width, int64_t heads, int64_t vocabulary,
                        int64_t max_length) {
  ModelConfig c;
  c.family = Family::decoder;
  c.vocabulary = vocabulary;
  c.width = width;
  c.inner = 4 * width;
  c.heads = heads;
  c.encoder_layers = 0;
  c.decoder_layers = layers;
  c.max_length = max_length;
  c.norm = NormPlacement::pre;
  c.positions = Positions::learned;
  c.activation = kernels::Activation::gelu;
  c.scale_embedding = false;
  return c;
}

}  // namespace troupe::model
