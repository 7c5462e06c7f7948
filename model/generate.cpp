#include "model/generate.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <numeric>

#include "kernels/base/thread_group.hpp"
#include "model/generate_batch.hpp"

namespace troupe::model {

namespace {

// Inputs by length, longest first, cut into batches.
std::vector<std::vector<size_t>> plan_batches(std::span<const std::vector<int32_t>> inputs,
                                              const GenerateOptions& options) {
  std::vector<size_t> order(inputs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return inputs[a].size() > inputs[b].size(); });
  std::vector<std::vector<size_t>> batches;
  int64_t longest = 0;
  for (const size_t index : order) {
    const bool full = batches.empty() || int64_t(batches.back().size()) >= options.batch_sequences ||
                      int64_t(batches.back().size() + 1) * longest > options.batch_tokens;
    if (full) {
      batches.emplace_back();
      longest = int64_t(inputs[index].size()) + 1;
    }
    batches.back().push_back(index);
  }
  return batches;
}

void check_inputs(std::span<const std::vector<int32_t>> inputs, int64_t tokens_max, int64_t vocabulary) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (int64_t(inputs[i].size()) > tokens_max)
      throw error(ErrorKind::usage, "input {} has {} tokens; the model takes at most {}", i + 1,
                  inputs[i].size(), tokens_max);
    for (const int32_t id : inputs[i])
      if (id < 0 || id >= vocabulary)
        throw error(ErrorKind::usage,
                    "input {} has token {}; the model's vocabulary has {} (is it another tokenizer?)", i + 1,
                    id, vocabulary);
  }
}

}  // namespace

void validate(const GenerateOptions& options, const ModelConfig& config) {
  const auto refuse = [](const char* name, auto value, const std::string& right) {
    throw error(ErrorKind::usage, "{} is {}; it must be {}", name, value, right);
  };
  const int64_t beam_max = std::min<int64_t>(64, config.vocabulary);
  if (options.beam < 1 || options.beam > beam_max)
    refuse("beam", options.beam, fmt::format("1 to {}", beam_max));
  if (options.n_best < 1 || options.n_best > options.beam)
    refuse("n-best", options.n_best, fmt::format("1 to the beam, {}", options.beam));
  if (!(options.length_penalty >= 0 && options.length_penalty <= 10))
    refuse("length penalty", options.length_penalty, "0 to 10");
  if (options.tokens_max < 0) refuse("most tokens of an output", options.tokens_max, "0 (no limit) or more");
  if (!(options.tokens_per_source >= 0 && options.tokens_per_source <= 1000))
    refuse("output tokens for a source token", options.tokens_per_source, "0 (no limit) to 1000");
  if (options.batch_sequences < 1 || options.batch_sequences > 4096)
    refuse("batch", options.batch_sequences, "1 to 4096 sequences");
  if (options.batch_tokens < 1) refuse("tokens of a batch", options.batch_tokens, "1 or more");
}

class GenerateMemories {
 public:
  explicit GenerateMemories(kernels::Backend& backend) : backend_(backend) {}

  std::unique_ptr<GenerateMemory> take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<GenerateMemory>(backend_);
    auto memory = std::move(free_.back());
    free_.pop_back();
    return memory;
  }
  void give(std::unique_ptr<GenerateMemory> memory) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(memory));
  }

 private:
  kernels::Backend& backend_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<GenerateMemory>> free_;  // as many as threads were ever at work at once
};

Generator::Generator(kernels::Backend& backend, const Model& model, const WeightsView& weights,
                     const GenerateOptions& options)
    : backend_(backend),
      model_(model),
      weights_(weights),
      options_(options),
      memories_(std::make_unique<GenerateMemories>(backend)) {
  validate(options, model.config());
}

Generator::~Generator() = default;

int64_t Generator::input_tokens_max() const {
  return model_.config().max_length - 1;
}

std::vector<std::vector<Hypothesis>> Generator::generate(std::span<const std::vector<int32_t>> inputs,
                                                         int threads) const {
  TROUPE_CHECK(threads >= 1);
  check_inputs(inputs, input_tokens_max(), model_.config().vocabulary);
  const auto batches = plan_batches(inputs, options_);
  std::vector<std::vector<Hypothesis>> results(inputs.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    try {
      const auto stream = backend_.create_stream();
      auto memory = memories_->take();
      GenerateWorker worker{backend_, model_, weights_, options_, *stream, *memory};
      for (size_t b; (b = next.fetch_add(1)) < batches.size();) {
        std::vector<std::span<const int32_t>> batch;
        for (const size_t index : batches[b]) batch.emplace_back(inputs[index]);
        auto outputs = GenerateBatch(worker, batch).run();
        for (size_t i = 0; i < outputs.size(); ++i) results[batches[b][i]] = std::move(outputs[i]);
      }
      memories_->give(std::move(memory));
    } catch (...) {
      next = batches.size();
      throw;
    }
  };
  ThreadGroup(std::min(size_t(threads), batches.size()), work).join();
  return results;
}

}  // namespace troupe::model
