// Generation: greedy and beam search with a key-value cache, for encoder-decoder models (translation) and
// decoder-only ones (continuation of a prompt). Takes and gives token ids; text is the caller's. A Generator
// holds views of a model and its weights, which outlive it; generate() may be called from several
// threads, and keeps its working memory for the next call.
//
// Sequences of like length form a batch of bounded size; threads take batches in turn; results come in the
// order of the inputs. With weights packed for inference on a CPU, an output is the same bits whatever else
// is in the batch. With others the last bits of the logits may depend on it (matrix products of other shapes
// add in another order): equal tokens are likely then, not certain.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.hpp"
#include "model/model.hpp"

namespace troupe::model {

// Beam search keeps `beam` unfinished hypotheses. Of the candidates that extend them by one token, in order
// of log probability, those among the first `beam` that end with </s> are finished; the first `beam` others
// go on. It ends when `beam` have finished or at the length limit, where what is unfinished counts as it is.
// Beam 1 is greedy.
struct GenerateOptions {
  int64_t beam = 1;
  int64_t n_best = 1;  // hypotheses returned, at most `beam`
  double length_penalty =
      0.6;  // alpha of Wu et al. 2016: score = log probability / ((5 + tokens) / 6)^alpha, >= 0
  int64_t tokens_max = 0;  // new tokens of an output, </s> included; 0: what the model's positions allow
  double tokens_per_source =
      3;  // encoder-decoder: an output has at most 16 + this * source tokens; 0: no such limit
  int64_t batch_sequences = 64;  // sequences of a batch, at most
  int64_t batch_tokens = 4096;   // padded source tokens of a batch, at most (a longer sequence is alone)
};
// Throws Error(usage) naming the option, its value and what would be right.
void validate(const GenerateOptions& options, const ModelConfig& config);

struct Hypothesis {
  std::vector<int32_t> tokens;  // without <s>, </s> and prompt
  double log_probability = 0;   // natural log, of all tokens and </s>
  double score = 0;             // with the length penalty; what n-best lists are sorted by, best first
  bool finished = false;        // ended with </s>, not at the length limit
};

class GenerateMemories;

class Generator {
 public:
  // `weights` are packed. Throws Error(usage) when options are impossible.
  Generator(kernels::Backend& backend, const Model& model, const WeightsView& weights,
            const GenerateOptions& options);
  ~Generator();

  // Longest input that generate() takes: source tokens, or prompt tokens (leaving room for one new token).
  int64_t input_tokens_max() const;

  // The n best outputs of each input, best first. Inputs are token ids without <s> and </s>; they may be
  // empty. Throws Error(usage) naming the input that is too long. `threads` >= 1 streams are used, one a
  // thread.
  std::vector<std::vector<Hypothesis>> generate(std::span<const std::vector<int32_t>> inputs,
                                                int threads) const;

 private:
  kernels::Backend& backend_;
  const Model& model_;
  WeightsView weights_;
  GenerateOptions options_;
  const std::unique_ptr<GenerateMemories> memories_;  // of threads that are done, for those to come
};

}  // namespace troupe::model
