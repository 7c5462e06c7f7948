// From lines of text to lines of text: a trained model with its tokenizer, found, verified and packed, and
// its use for translation (encoder-decoder) or continuation (decoder-only). No actors here: programs call it
// directly.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "actors/inference/exported_model.hpp"
#include "data/tokenizer.hpp"
#include "model/checkpoint.hpp"
#include "model/generate.hpp"

namespace troupe::inference {

using Warn = std::function<void(const std::string& message)>;

// A checkpoint or exported model, a folder of checkpoints, or the output folder of a training run: the newest
// checkpoint that verifies; broken ones are passed over with a call of `warn`. Throws Error(file) naming what
// was looked for.
std::string find_checkpoint(const std::string& given, const Warn& warn);

// Weights in memory and packed, or mapped, read-only after loading: any thread.
class TrainedModel {
 public:
  // `int8`: for generation alone, every matrix rounded to 8 bits; an exported model has what it was exported
  // with. Throws Error(file | corrupt | version); Error(usage) when the checkpoint has no tokenizer, or the
  // exported model other weights than `int8` asks for.
  static std::shared_ptr<const TrainedModel> load(const std::string& checkpoint, const Warn& warn,
                                                  bool int8 = false);

  kernels::Backend& backend() const { return *backend_; }
  const model::Model& model() const { return *model_; }
  const model::CheckpointInfo& info() const { return exported_ ? exported_->info : saved_.info; }
  int64_t step() const { return exported_ ? exported_->step : saved_.step; }
  bool exported() const { return exported_.has_value(); }
  const std::string& path() const { return path_; }
  const data::Tokenizer& tokenizer() const { return *tokenizer_; }
  model::WeightsView weights() const {
    if (exported_) return exported_->weights();
    return {static_cast<const float*>(saved_.weights.data()), &packed_.views};
  }
  bool translates() const { return info().model.family == model::Family::encoder_decoder; }

 private:
  TrainedModel() = default;
  std::string path_;
  std::unique_ptr<kernels::Backend> backend_;
  std::unique_ptr<model::Model> model_;
  model::SavedWeights saved_;
  model::PackedWeights packed_;
  std::optional<ExportedModel> exported_;  // in place of these two
  std::unique_ptr<data::Tokenizer> tokenizer_;
};

struct Output {
  std::string text;
  double score = 0;  // with the length penalty
  double log_probability = 0;
};

class Translator {
 public:
  // Throws Error(usage) when the options are impossible.
  Translator(std::shared_ptr<const TrainedModel> trained, const model::GenerateOptions& options, int threads);

  // The n best outputs of each line, best first, in the order of the lines; an empty line has one empty
  // output. Lines are cleaned as `prepare` does; one that is longer than the model takes is cut, and `cut` is
  // told its index.
  std::vector<std::vector<Output>> run(std::span<const std::string> lines,
                                       const std::function<void(size_t index)>& cut = {}) const;

 private:
  std::shared_ptr<const TrainedModel> trained_;
  model::Generator generator_;
  int threads_;
};

}  // namespace troupe::inference
