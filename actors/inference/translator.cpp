#include "actors/inference/translator.hpp"

#include <filesystem>

#include "data/clean.hpp"
#include "kernels/base/error.hpp"
#include "kernels/cpu/backend.hpp"

namespace troupe::inference {

namespace {

// Throws Error(usage) unless the model is packed as asked.
void check_packed(const ExportedModel& exported, const std::string& path, const Precision& asked) {
  if (asked.int8 && exported.type != kernels::DType::i8)
    throw error(ErrorKind::usage, "{} was exported without --int8; export it with --int8, or leave that out",
                path);
  const kernels::DType compute = exported.info.model.compute;
  if (asked.compute && *asked.compute != compute)
    throw error(ErrorKind::usage,
                "{0} was exported to compute in {1}; export it with --compute {2}, or leave that out", path,
                kernels::to_string(compute), kernels::to_string(*asked.compute));
}

// Bytes that a model falls back to may be line ends.
std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  return text;
}

}  // namespace

model::ModelConfig in_precision(model::ModelConfig config, const Precision& precision) {
  if (precision.compute && *precision.compute != config.compute) {
    config.compute = *precision.compute;
    config.products = model::Products::compute;  // fp8 and TF32 belong to one type each
  }
  return config;
}

std::string find_checkpoint(const std::string& given, const Warn& warn) {
  auto found = model::latest_checkpoint(given, warn);
  const auto inside = std::filesystem::path(given) / "checkpoints";
  if (!found && std::filesystem::is_directory(inside)) found = model::latest_checkpoint(inside, warn);
  if (found) return found->string();
  throw error(ErrorKind::file,
              "{}: no whole checkpoint here; give a checkpoint file or the --out folder of troupe train",
              given);
}

std::shared_ptr<const TrainedModel> TrainedModel::load(const std::string& checkpoint, const Warn& warn,
                                                       Use use, const Precision& precision) {
  std::shared_ptr<TrainedModel> trained(new TrainedModel);
  trained->path_ = find_checkpoint(checkpoint, warn);
  trained->int8_ = precision.int8;
  trained->backend_ = kernels::make_cpu_backend();
  if (is_exported(trained->path_)) {
    if (use == Use::loss)
      throw error(ErrorKind::usage, "{} is an exported model; evaluate the checkpoint that it was made from",
                  trained->path_);
    const auto stream = trained->backend_->create_stream();
    trained->exported_ = std::make_shared<ExportedModel>(open_exported(trained->path_, *stream));
    check_packed(*trained->exported_, trained->path_, precision);
  } else {
    trained->saved_ =
        std::make_shared<model::SavedWeights>(model::load_weights_only(trained->path_, *trained->backend_));
  }
  const model::CheckpointInfo& info = trained->info();
  if (info.tokenizer.empty())
    throw error(ErrorKind::usage, "{} has no tokenizer in it; train on a dataset made by troupe prepare",
                trained->path_);
  trained->tokenizer_ = std::make_shared<data::Tokenizer>(info.tokenizer, trained->path_);
  trained->model_ = model::make_model(in_precision(info.model, precision));
  if (!trained->exported()) trained->pack(use);
  return trained;
}

void TrainedModel::pack(Use use) {
  const auto stream = backend_->create_stream();
  const kernels::DType compute = model_->config().compute;
  const kernels::PackedType type = use == Use::loss ? kernels::PackedType(compute)
                                   : int8_          ? kernels::PackedType(kernels::DType::i8)
                                           : kernels::PackedType(compute, kernels::Packing::inference);
  packed_ = std::make_shared<model::PackedWeights>(model::pack_weights(
      *backend_, *stream, *model_, static_cast<const float*>(saved_->weights.data()), type));
}

std::shared_ptr<const TrainedModel> TrainedModel::packed_for(Use use) const {
  TROUPE_CHECK(!exported());
  std::shared_ptr<TrainedModel> other(new TrainedModel(*this));
  other->pack(use);
  return other;
}

Translator::Translator(std::shared_ptr<const TrainedModel> trained, const model::GenerateOptions& options,
                       int threads)
    : trained_(std::move(trained)),
      generator_(trained_->backend(), trained_->model(), trained_->weights(), options),
      n_best_(size_t(options.n_best)),
      threads_(threads) {}

std::vector<std::vector<Output>> Translator::run(std::span<const std::string> lines,
                                                 const std::function<void(size_t)>& cut) const {
  const data::Tokenizer& tokenizer = trained_->tokenizer();
  const bool nfkc = trained_->info().compatibility_forms;
  const size_t tokens_max = size_t(generator_.input_tokens_max());
  std::vector<std::vector<int32_t>> inputs;
  std::vector<size_t> places;  // of the inputs among the lines
  for (size_t i = 0; i < lines.size(); ++i) {
    std::vector<int32_t> ids = tokenizer.encode(data::clean_line(lines[i], nfkc));
    if (ids.empty() && trained_->translates()) continue;
    if (ids.size() > tokens_max) {
      if (trained_->translates())
        ids.resize(tokens_max);
      else  // what comes next follows from the end, and needs room
        ids.erase(ids.begin(), ids.end() - int64_t(tokens_max / 2));
      if (cut) cut(i);
    }
    inputs.push_back(std::move(ids));
    places.push_back(i);
  }
  const auto generated = generator_.generate(inputs, threads_);
  std::vector<std::vector<Output>> outputs(lines.size(), std::vector<Output>(n_best_));
  for (size_t i = 0; i < generated.size(); ++i) {
    std::vector<Output>& output = outputs[places[i]];
    output.clear();
    for (const model::Hypothesis& hypothesis : generated[i])
      output.push_back(
          {one_line(tokenizer.decode(hypothesis.tokens)), hypothesis.score, hypothesis.log_probability});
  }
  return outputs;
}

}  // namespace troupe::inference
