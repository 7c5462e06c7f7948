// What BLEU and chrF share: Python's idea of white space, counts of n-grams, and bootstrap resampling over
// sentences.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/metrics.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/random.hpp"

namespace troupe::data {

// The words of a line as Python's str.split() gives them: between runs of Unicode white space.
std::vector<std::string_view> split_words(std::string_view line);

using NgramCounts = std::unordered_map<std::string_view, int64_t>;

// Sum over n-grams of the smaller of both counts.
int64_t count_matches(const NgramCounts& hypothesis, const NgramCounts& reference);

template <size_t Size>
using SentenceCounts = std::array<int64_t, Size>;

inline void check_lengths(size_t hypotheses, size_t references) {
  if (hypotheses != references)
    throw error(ErrorKind::usage,
                "cannot measure {} translations against {} references: give one reference each", hypotheses,
                references);
  if (hypotheses == 0) throw error(ErrorKind::usage, "cannot measure translations: there are none");
}

template <size_t Size>
SentenceCounts<Size> sum_of(const std::vector<SentenceCounts<Size>>& sentences) {
  SentenceCounts<Size> sum{};
  for (const auto& sentence : sentences)
    for (size_t i = 0; i < Size; ++i) sum[i] += sentence[i];
  return sum;
}

// Scores as many resamples of the sentences, with replacement, and gives the middle 95 %.
template <size_t Size, typename Score>
Confidence bootstrap_interval(const std::vector<SentenceCounts<Size>>& sentences,
                              const BootstrapOptions& options, const Score& score) {
  if (options.resamples == 0) return {};
  const Philox random = philox_from(options.seed);
  const uint64_t size = sentences.size();
  std::vector<double> scores;
  for (uint64_t resample = 0; resample < options.resamples; ++resample) {
    SentenceCounts<Size> sum{};
    for (uint64_t i = 0; i < size; ++i) {
      const auto& drawn = sentences[(random(i, resample)[0] * size) >> 32];
      for (size_t k = 0; k < Size; ++k) sum[k] += drawn[k];
    }
    scores.push_back(score(sum));
  }
  std::sort(scores.begin(), scores.end());
  const size_t cut = scores.size() / 40;
  return {scores[cut], scores[scores.size() - 1 - cut]};
}

}  // namespace troupe::data
