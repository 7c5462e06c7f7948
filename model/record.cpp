#include "model/record.hpp"

#include <sstream>

#include <cereal/archives/portable_binary.hpp>
#include <cereal/types/array.hpp>
#include <cereal/types/string.hpp>

#include "model/parameters.hpp"

namespace troupe::model {

namespace {

// As archive(flag) does, which on reading takes any byte for a bool.
void flag_field(cereal::PortableBinaryOutputArchive& archive, bool flag) {
  const auto byte = uint8_t(flag);
  archive(byte);
}
void flag_field(cereal::PortableBinaryInputArchive& archive, bool& flag) {
  uint8_t byte = 0;
  archive(byte);
  if (byte > 1) throw cereal::Exception(fmt::format("a byte of {} in place of yes or no", byte));
  flag = byte == 1;
}

// As archive(text) does, which on reading makes room for any size that is claimed.
void text_field(cereal::PortableBinaryOutputArchive& archive, const std::string& text, size_t) {
  archive(text);
}
void text_field(cereal::PortableBinaryInputArchive& archive, std::string& text, size_t bytes_max) {
  cereal::size_type bytes = 0;
  archive(cereal::make_size_tag(bytes));
  if (bytes > bytes_max) throw cereal::Exception(fmt::format("a text of {} bytes", bytes));
  text.resize(bytes);
  archive(cereal::binary_data(text.data(), bytes));
}

}  // namespace

// A field added later goes to the end of its type, behind the format that brought it.
template <class Archive, class Config>
void model_fields(Archive& archive, Config& c, uint32_t format) {
  archive(c.family, c.vocabulary, c.width, c.inner, c.heads, c.encoder_layers, c.decoder_layers, c.max_length,
          c.norm, c.positions, c.activation);
  flag_field(archive, c.scale_embedding);
  archive(c.dropout, c.attention_dropout, c.activation_dropout, c.compute, c.pad_id, c.unk_id, c.bos_id,
          c.eos_id);
  flag_field(archive, c.tied_embeddings);
  if (format >= 2) archive(c.norm_kind);
  if (format >= 3) archive(c.products);
}

template <class Archive>
void serialize(Archive& archive, ScheduleConfig& c) {
  archive(c.kind, c.peak, c.warmup_steps, c.total_steps, c.decay_steps, c.floor);
}

template <class Archive>
void serialize(Archive& archive, OptimizerConfig& c) {
  archive(c.beta1, c.beta2, c.epsilon, c.weight_decay, c.clip_norm, c.label_smoothing, c.schedule);
}

template <class Archive>
void serialize(Archive& archive, LossTotals& totals) {
  archive(totals.loss_units, totals.nll_units, totals.tokens, totals.correct);
}

template <class Archive>
void serialize(Archive& archive, EvaluationState& e) {
  archive(e.last_step, e.last, e.best_step, e.best, e.without_better);
}

namespace {

template <class Archive, class Info, class State>
void all_fields(Archive& archive, Info& info, State& state, uint32_t format, size_t text_bytes_max) {
  model_fields(archive, info.model, format);
  archive(info.optimizer);
  text_field(archive, info.job_text, text_bytes_max);
  text_field(archive, info.tokenizer, text_bytes_max);
  if (format >= 4) flag_field(archive, info.compatibility_forms);
  if (format >= 5) text_field(archive, info.dataset, text_bytes_max);
  archive(state.step, state.updates, state.skipped, state.target_tokens, state.chain, state.evaluation,
          state.elements);
}

}  // namespace

std::string encode_record(const CheckpointInfo& info, const TrainState& state) {
  std::ostringstream out;
  {
    cereal::PortableBinaryOutputArchive archive(out);
    all_fields(archive, info, state, kRecordFormat, 0);
  }
  return out.str();
}

void read_record(SectionReader& reader, CheckpointInfo& info, TrainState& state) {
  const std::string record = reader.read_text("record");
  try {
    std::istringstream in(record);
    cereal::PortableBinaryInputArchive archive(in);
    all_fields(archive, info, state, reader.format(), record.size());
    if (in.peek() != std::istringstream::traits_type::eof())
      throw cereal::Exception("bytes follow the record");
    validate(info.model);
    validate(info.optimizer);
  } catch (const std::exception& reason) {
    reader.corrupt(fmt::format("its settings cannot be read ({})", reason.what()));
  }
  ParameterTable table;
  describe_parameters(info.model, table);
  if (table.elements() != state.elements || state.step < 0)
    reader.corrupt(
        fmt::format("it claims {} weights where its model has {}", state.elements, table.elements()));
}

}  // namespace troupe::model
