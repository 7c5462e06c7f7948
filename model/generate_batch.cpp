#include "model/generate_batch.hpp"

#include <algorithm>
#include <cmath>

#include "model/slot_arena.hpp"

namespace troupe::model {

using kernels::View;

GenerateBatch::GenerateBatch(GenerateWorker& worker, std::span<const std::span<const int32_t>> inputs)
    : worker_(worker), inputs_(inputs), results_(inputs.size()) {
  const ModelConfig& config = worker.model.config();
  const int64_t beam = worker.options.beam;
  width_ = beam == 1 ? 1 : std::min(beam + 1, config.vocabulary);
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::vector<int32_t> prompt{config.bos_id};
    if (!translates()) prompt.insert(prompt.end(), inputs[i].begin(), inputs[i].end());
    const SearchLimits limits = limits_of(int64_t(inputs[i].size()), int64_t(prompt.size()));
    tokens_max_ = std::max(tokens_max_, int64_t(prompt.size()) + limits.tokens_max);
    sequences_.push_back({i, std::move(prompt), Search(limits)});
  }
}

SearchLimits GenerateBatch::limits_of(int64_t source_tokens, int64_t prompt_tokens) const {
  const GenerateOptions& options = worker_.options;
  const ModelConfig& config = worker_.model.config();
  int64_t tokens = config.max_length - prompt_tokens + 1;
  if (options.tokens_max > 0) tokens = std::min(tokens, options.tokens_max);
  if (translates() && options.tokens_per_source > 0)
    tokens = std::min(tokens, 16 + int64_t(options.tokens_per_source * double(source_tokens)));
  return {options.beam, options.n_best, options.length_penalty, tokens, config.eos_id};
}

// sentence </s>, padded.
TokenMatrix GenerateBatch::source_matrix() const {
  const ModelConfig& config = worker_.model.config();
  TokenMatrix source;
  source.rows = int32_t(inputs_.size());
  for (const auto& input : inputs_) source.cols = std::max(source.cols, int32_t(input.size()) + 1);
  for (const auto& input : inputs_) {
    source.ids.insert(source.ids.end(), input.begin(), input.end());
    source.ids.push_back(config.eos_id);
    source.lengths.push_back(int32_t(input.size()) + 1);
    source.ids.resize(source.lengths.size() * size_t(source.cols), config.pad_id);
  }
  return source;
}

void GenerateBatch::encode() {
  EncoderSaved saved;  // stays empty: forward only
  const TokenMatrix source = source_matrix();
  const Memory memory = encoder_forward(*pass_, worker_.model, source, saved);
  const auto& layers = worker_.model.indices().decoder;
  for (size_t i = 0; i < layers.size(); ++i)
    cache_->set_cross(*pass_, int64_t(i), layers[i].cross_attention->key_value, memory);
  worker_.stream.synchronize();
}

void GenerateBatch::prompt() {
  size_t length = sequences_.front().prompt.size();
  for (const Sequence& sequence : sequences_) length = std::min(length, sequence.prompt.size());
  std::vector<int32_t> ids;
  for (const Sequence& sequence : sequences_)
    ids.insert(ids.end(), sequence.prompt.begin(), sequence.prompt.begin() + std::ptrdiff_t(length));
  consume(decode_prompt(*pass_, worker_.model, ids, int64_t(length), width_, *cache_), 1);
}

void GenerateBatch::step() {
  const size_t fed = size_t(cache_->tokens());
  std::vector<int32_t> ids(size_t(cache_->places()), worker_.model.config().pad_id);
  for (size_t s = 0; s < sequences_.size(); ++s) {
    const Sequence& sequence = sequences_[s];
    if (sequence.search.done()) continue;
    int32_t* places = ids.data() + s * size_t(cache_->beam());
    if (fed < sequence.prompt.size())
      places[0] = sequence.prompt[fed];
    else
      for (const Live& hypothesis : sequence.search.live())
        places[hypothesis.place] = hypothesis.tokens.back();
  }
  consume(decode_step(*pass_, worker_.model, ids, width_, *cache_), cache_->beam());
}

void GenerateBatch::consume(const NextTokens& next, int64_t rows_a_sequence) {
  const size_t cells = size_t(next.ids.size()), width = size_t(width_);
  std::vector<float> log_probabilities(cells), live_log_probabilities;
  std::vector<int32_t> ids(cells), live_ids;
  worker_.stream.synchronize();
  worker_.backend.copy_to_host(next.log_probabilities, log_probabilities.data());
  worker_.backend.copy_to_host(next.ids, ids.data());
  for (size_t s = 0; s < sequences_.size(); ++s) {
    const Sequence& sequence = sequences_[s];
    const bool in_prompt = size_t(cache_->tokens()) < sequence.prompt.size();
    if (sequence.search.done() || in_prompt) continue;
    live_log_probabilities.clear();
    live_ids.clear();
    for (const Live& hypothesis : sequence.search.live()) {
      const size_t row = s * size_t(rows_a_sequence) + size_t(hypothesis.place);
      const auto begin = std::ptrdiff_t(row * width), end = begin + std::ptrdiff_t(width);
      live_log_probabilities.insert(live_log_probabilities.end(), log_probabilities.begin() + begin,
                                    log_probabilities.begin() + end);
      live_ids.insert(live_ids.end(), ids.begin() + begin, ids.begin() + end);
    }
    advance(s, live_log_probabilities, live_ids);
  }
}

void GenerateBatch::advance(size_t s, std::span<const float> log_probabilities,
                            std::span<const int32_t> ids) {
  for (const float value : log_probabilities)
    if (!std::isfinite(value))
      throw error(ErrorKind::numeric, "generation: the model's output is {}; its weights are not usable",
                  value);
  Search& search = sequences_[s].search;
  search.step(log_probabilities, ids, width_);
  if (search.done()) {
    results_[sequences_[s].input] = search.take_results();
    return;
  }
  const int64_t first = int64_t(s) * cache_->beam();
  for (const Live& hypothesis : search.live())
    if (hypothesis.place != hypothesis.parent)
      cache_->copy_place(worker_.stream, first + hypothesis.parent, first + hypothesis.place);
}

// Sequences that are done leave when they are a quarter of the batch: copying what stays costs something too.
void GenerateBatch::leave() {
  std::vector<int64_t> kept;
  for (size_t s = 0; s < sequences_.size(); ++s)
    if (!sequences_[s].search.done()) kept.push_back(int64_t(s));
  if (kept.empty()) return sequences_.clear();
  if (4 * kept.size() > 3 * sequences_.size()) return;
  std::vector<Sequence> remaining;
  for (const int64_t s : kept) remaining.push_back(std::move(sequences_[size_t(s)]));
  sequences_ = std::move(remaining);
  cache_->keep(worker_.stream, kept);
}

std::vector<std::vector<Hypothesis>> GenerateBatch::run() {
  const ModelConfig& config = worker_.model.config();
  const int64_t rows = int64_t(inputs_.size()), beam = worker_.options.beam;
  int64_t longest = 1;
  for (const auto& input : inputs_) longest = std::max(longest, int64_t(input.size()) + 1);
  size_t bytes = decode_arena_bytes(config, rows, beam, translates() ? 1 : longest, width_);
  if (translates()) bytes = std::max(bytes, worker_.model.arena_bytes(rows, rows * longest, false));
  kernels::Arena& arena = with_room(worker_.memory.arena, bytes, worker_.backend);
  arena.reset();
  pass_.emplace(
      Pass{worker_.stream, arena, config, worker_.model.parameters(), worker_.weights, {}, nullptr});
  cache_.emplace(worker_.memory.pool, worker_.stream, config, rows, beam, tokens_max_);
  if (translates()) encode();
  arena.reset();
  prompt();
  for (leave(); !sequences_.empty(); leave()) {
    arena.reset();
    step();
  }
  return std::move(results_);
}

}  // namespace troupe::model
