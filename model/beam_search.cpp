#include "model/beam_search.hpp"

#include <algorithm>

#include "kernels/base/det_math.hpp"

namespace troupe::model {

namespace {

struct Candidate {
  double log_probability;
  size_t from;  // index in live
  int32_t id;
};

// Children stay at their parent's place where they can; the others get the places that are left over.
void assign_places(std::vector<Live>& live, int64_t beam) {
  std::vector<bool> taken(size_t(beam), false);
  for (Live& hypothesis : live) {
    hypothesis.place = -1;
    if (taken[size_t(hypothesis.parent)]) continue;
    taken[size_t(hypothesis.parent)] = true;
    hypothesis.place = hypothesis.parent;
  }
  size_t free = 0;
  for (Live& hypothesis : live) {
    if (hypothesis.place >= 0) continue;
    while (taken[free]) ++free;
    taken[free] = true;
    hypothesis.place = int64_t(free);
  }
}

}  // namespace

double length_penalty(double alpha, int64_t tokens) {
  if (alpha == 0) return 1;
  return det::exp(alpha * det::log((5.0 + double(tokens)) / 6.0));
}

Search::Search(const SearchLimits& limits) : limits_(limits), live_(1) {
  TROUPE_CHECK(limits.beam >= 1 && limits.n_best >= 1 && limits.tokens_max >= 1);
}

void Search::finish(std::vector<int32_t> tokens, double log_probability, bool ended) {
  const int64_t count = int64_t(tokens.size()) + (ended ? 1 : 0);
  Hypothesis hypothesis{std::move(tokens), log_probability,
                        log_probability / length_penalty(limits_.alpha, count), ended};
  const auto worse = [&](const Hypothesis& other) { return other.score < hypothesis.score; };
  finished_.insert(std::find_if(finished_.begin(), finished_.end(), worse), std::move(hypothesis));
  if (int64_t(finished_.size()) > limits_.n_best) finished_.pop_back();
  ++finished_count_;
}

// True when nothing that is still live can come among the n best: log probabilities only fall, and no penalty
// is larger than that of the longest output.
bool Search::settled(int64_t tokens) const {
  if (finished_count_ >= limits_.beam || tokens == limits_.tokens_max || live_.empty()) return true;
  if (int64_t(finished_.size()) < limits_.n_best) return false;
  return live_.front().log_probability / length_penalty(limits_.alpha, limits_.tokens_max) <=
         finished_.back().score;
}

void Search::step(std::span<const float> log_probabilities, std::span<const int32_t> ids, int64_t width) {
  TROUPE_CHECK(!done_ && log_probabilities.size() == live_.size() * size_t(width) &&
               ids.size() == log_probabilities.size());
  std::vector<Candidate> candidates;
  for (size_t from = 0; from < live_.size(); ++from)
    for (size_t i = from * size_t(width); i < (from + 1) * size_t(width); ++i)
      candidates.push_back({live_[from].log_probability + double(log_probabilities[i]), from, ids[i]});
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.log_probability > b.log_probability;
  });

  std::vector<Live> next;
  const int64_t tokens = int64_t(live_.front().tokens.size()) + 1;
  for (size_t rank = 0; rank < candidates.size() && int64_t(next.size()) < limits_.beam; ++rank) {
    const Candidate& candidate = candidates[rank];
    const Live& from = live_[candidate.from];
    if (candidate.id == limits_.eos_id) {
      if (int64_t(rank) < limits_.beam) finish(from.tokens, candidate.log_probability, true);
      continue;
    }
    Live& child = next.emplace_back();
    child.tokens = from.tokens;
    child.tokens.push_back(candidate.id);
    child.log_probability = candidate.log_probability;
    child.parent = from.place;
  }
  live_ = std::move(next);
  assign_places(live_, limits_.beam);
  done_ = settled(tokens);
  if (done_ && finished_count_ < limits_.beam && tokens == limits_.tokens_max)
    for (const Live& hypothesis : live_) finish(hypothesis.tokens, hypothesis.log_probability, false);
}

std::vector<Hypothesis> Search::take_results() {
  TROUPE_CHECK(done_);
  return std::move(finished_);
}

}  // namespace troupe::model
