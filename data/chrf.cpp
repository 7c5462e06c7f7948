#include "data/metrics.hpp"
#include "data/text_metric.hpp"

namespace troupe::data {
namespace {

constexpr size_t kOrder = 6;
constexpr double kBetaSquared = 4;
using Counts = SentenceCounts<3 * kOrder>;  // of each order: hypothesis, reference, matches

// The line without white space, and where each of its characters begins (with the end behind them).
struct Characters {
  explicit Characters(std::string_view line) {
    for (const auto word : split_words(line)) text += word;
    for (size_t at = 0; at < text.size(); ++at)
      if ((static_cast<unsigned char>(text[at]) & 0xC0) != 0x80) begins.push_back(at);
    begins.push_back(text.size());
  }
  NgramCounts ngrams(size_t n) const {
    NgramCounts counts;
    for (size_t i = 0; i + n < begins.size(); ++i)
      ++counts[std::string_view(text).substr(begins[i], begins[i + n] - begins[i])];
    return counts;
  }
  int64_t ngram_count(size_t n) const { return std::max<int64_t>(0, int64_t(begins.size()) - int64_t(n)); }

  std::string text;
  std::vector<size_t> begins;
};

Counts count_sentence(const std::string& hypothesis, const std::string& reference) {
  const Characters ours(hypothesis), theirs(reference);
  Counts counts{};
  for (size_t n = 1; n <= kOrder; ++n) {
    int64_t* order = &counts[3 * (n - 1)];
    order[1] = theirs.ngram_count(n);
    if (order[1] == 0) continue;  // an order that the reference lacks is not counted
    order[0] = ours.ngram_count(n);
    order[2] = count_matches(ours.ngrams(n), theirs.ngrams(n));
  }
  return counts;
}

double score_of(const Counts& counts) {
  double precision = 0, recall = 0;
  int orders = 0;
  for (size_t n = 0; n < kOrder; ++n) {
    const auto hypothesis = double(counts[3 * n]), reference = double(counts[3 * n + 1]);
    if (hypothesis == 0 || reference == 0) continue;
    precision += double(counts[3 * n + 2]) / hypothesis;
    recall += double(counts[3 * n + 2]) / reference;
    ++orders;
  }
  if (precision + recall == 0) return 0;
  precision /= orders;
  recall /= orders;
  return 100 * (1 + kBetaSquared) * precision * recall / (kBetaSquared * precision + recall);
}

}  // namespace

Chrf corpus_chrf(std::span<const std::string> hypotheses, std::span<const std::string> references,
                 const BootstrapOptions& bootstrap) {
  check_lengths(hypotheses.size(), references.size());
  std::vector<Counts> sentences;
  for (size_t i = 0; i < hypotheses.size(); ++i)
    sentences.push_back(count_sentence(hypotheses[i], references[i]));
  Chrf chrf;
  chrf.score = score_of(sum_of(sentences));
  chrf.confidence = bootstrap_interval(sentences, bootstrap, score_of);
  chrf.signature = fmt::format("nrefs:1|bs:{}|seed:{}|case:mixed|eff:yes|nc:6|nw:0|space:no|by:troupe",
                               bootstrap.resamples, bootstrap.seed);
  return chrf;
}

std::string Chrf::text() const {
  return fmt::format("chrF2 = {:.2f} (95 %: {:.2f} to {:.2f})", score, confidence.low, confidence.high);
}

}  // namespace troupe::data
