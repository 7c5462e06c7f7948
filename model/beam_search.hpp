// The decisions of beam search for one sequence: which candidates go on, which are finished, when to stop.
// Plain values without tensors; a batch of sequences keeps one Search each. The search is described at
// GenerateOptions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/generate.hpp"

namespace troupe::model {

// ((5 + tokens) / 6)^alpha (Wu et al. 2016, equation 14).
double length_penalty(double alpha, int64_t tokens);

struct SearchLimits {
  int64_t beam = 1;
  int64_t n_best = 1;
  double alpha = 0;
  int64_t tokens_max = 1;  // of this sequence, </s> included
  int32_t eos_id = 3;
};

// An unfinished hypothesis. `place` (< beam) is where its keys and values are; `parent` the place of the
// hypothesis it extends. A hypothesis that can stay where its parent was does: the others have `place` !=
// `parent` and are copied.
struct Live {
  std::vector<int32_t> tokens;
  double log_probability = 0;
  int64_t place = 0;
  int64_t parent = 0;
};

class Search {
 public:
  explicit Search(const SearchLimits& limits);

  bool done() const { return done_; }
  const std::vector<Live>& live() const { return live_; }  // in order of log probability

  // The best `width` next tokens of each live hypothesis, in the order of live(): log probabilities, best
  // first (ties: lower id first), and their ids. REQUIRES !done(), width >= min(beam + 1, vocabulary).
  void step(std::span<const float> log_probabilities, std::span<const int32_t> ids, int64_t width);

  // The n best, best first. REQUIRES done().
  std::vector<Hypothesis> take_results();

 private:
  void finish(std::vector<int32_t> tokens, double log_probability, bool ended);
  bool settled(int64_t tokens) const;

  SearchLimits limits_;
  std::vector<Live> live_;
  std::vector<Hypothesis> finished_;  // best first; equal scores in the order they finished
  int64_t finished_count_ = 0;
  bool done_ = false;
};

}  // namespace troupe::model
