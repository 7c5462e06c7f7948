// Generates for one batch of sequences on one stream: encodes, then decodes a token at a time until every
// search is done; sequences that are done leave the batch. One thread; the arena and the stream are used
// again by the next batch.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "model/beam_search.hpp"
#include "model/buffer_pool.hpp"
#include "model/decode.hpp"
#include "model/generate.hpp"
#include "model/stacks.hpp"

namespace troupe::model {

// What is kept from batch to batch, and by a Generator from call to call.
struct GenerateMemory {
  explicit GenerateMemory(kernels::Backend& backend) : pool(backend) {}
  BufferPool pool;
  std::optional<kernels::Arena> arena;
};

// What a thread needs.
struct GenerateWorker {
  kernels::Backend& backend;
  const Model& model;
  const WeightsView& weights;
  const GenerateOptions& options;
  kernels::Stream& stream;
  GenerateMemory& memory;
};

class GenerateBatch {
 public:
  // `inputs` as in Generator::generate; they outlive the batch. REQUIRES at least one.
  GenerateBatch(GenerateWorker& worker, std::span<const std::span<const int32_t>> inputs);
  // Results in the order of the inputs. Call once.
  std::vector<std::vector<Hypothesis>> run();

 private:
  struct Sequence {
    size_t input;                 // index in the results
    std::vector<int32_t> prompt;  // <s> first
    Search search;
  };

  bool translates() const { return worker_.model.config().family == Family::encoder_decoder; }
  SearchLimits limits_of(int64_t source_tokens, int64_t prompt_tokens) const;
  TokenMatrix source_matrix() const;
  void encode();
  void prompt();
  void step();
  // Hands each search its rows: those of sequence s start at s * rows_a_sequence.
  void consume(const NextTokens& next, int64_t rows_a_sequence);
  void advance(size_t s, std::span<const float> log_probabilities, std::span<const int32_t> ids);
  void leave();

  GenerateWorker& worker_;
  std::span<const std::span<const int32_t>> inputs_;
  std::vector<Sequence> sequences_;  // as in the cache
  std::vector<std::vector<Hypothesis>> results_;
  std::optional<Pass> pass_;
  std::optional<DecoderCache> cache_;
  int64_t width_;           // candidates a row
  int64_t tokens_max_ = 0;  // of a sequence, its prompt included
};

}  // namespace troupe::model
