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

// What a model's weights are packed for.
enum class Use : uint8_t {
  loss = 1,     // as in training
  translation,  // an output does not depend on the batch
};

// What a model computes in.
struct Precision {
  std::optional<kernels::DType> compute;  // of activations and products, f32 or bf16; none: as trained
  bool int8 = false;                      // translates with every matrix rounded to 8 bits
};

// The model as it computes then.
model::ModelConfig in_precision(model::ModelConfig config, const Precision& precision);

// Weights in memory and packed, or mapped, read-only after loading: any thread.
class TrainedModel {
 public:
  // Throws Error(file | corrupt | version); Error(usage) when the checkpoint has no tokenizer, or when an
  // exported model, which is packed as it is, is wanted for a loss or in another precision than its own.
  static std::shared_ptr<const TrainedModel> load(const std::string& checkpoint, const Warn& warn,
                                                  Use use = Use::translation,
                                                  const Precision& precision = {});
  // The same weights packed for another use; what was read is shared. REQUIRES that it is not exported.
  std::shared_ptr<const TrainedModel> packed_for(Use use) const;

  kernels::Backend& backend() const { return *backend_; }
  const model::Model& model() const { return *model_; }
  const model::CheckpointInfo& info() const { return exported_ ? exported_->info : saved_->info; }
  int64_t step() const { return exported_ ? exported_->step : saved_->step; }
  bool exported() const { return exported_ != nullptr; }
  const std::string& path() const { return path_; }
  const data::Tokenizer& tokenizer() const { return *tokenizer_; }
  model::WeightsView weights() const {
    if (exported_) return exported_->weights();
    return {static_cast<const float*>(saved_->weights.data()), &packed_->views};
  }
  bool translates() const { return info().model.family == model::Family::encoder_decoder; }

 private:
  TrainedModel() = default;
  void pack(Use use);

  std::string path_;
  bool int8_ = false;
  std::shared_ptr<kernels::Backend> backend_;
  std::shared_ptr<const model::Model> model_;
  std::shared_ptr<const model::SavedWeights> saved_;
  std::shared_ptr<const model::PackedWeights> packed_;
  std::shared_ptr<const ExportedModel> exported_;  // in place of these two
  std::shared_ptr<const data::Tokenizer> tokenizer_;
};

struct Output {
  std::string text;  // one line, whatever the model says
  double score = 0;  // with the length penalty
  double log_probability = 0;
};

class Translator {
 public:
  // Throws Error(usage) when the options are impossible.
  Translator(std::shared_ptr<const TrainedModel> trained, const model::GenerateOptions& options, int threads);

  // The n best outputs of each line, best first, in the order of the lines; of an empty line that is to be
  // translated, as many empty ones. Lines are cleaned as `prepare` does. One that is longer than the model
  // takes is cut, and `cut` is told its index: a sentence loses its end, a prompt its beginning, down to half
  // of what the model takes.
  std::vector<std::vector<Output>> run(std::span<const std::string> lines,
                                       const std::function<void(size_t index)>& cut = {}) const;

 private:
  std::shared_ptr<const TrainedModel> trained_;
  model::Generator generator_;
  size_t n_best_;
  int threads_;
};

}  // namespace troupe::inference
