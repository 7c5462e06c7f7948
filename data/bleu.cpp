#include <cmath>

#include "data/metrics.hpp"
#include "data/text_metric.hpp"

namespace troupe::data {
namespace {

constexpr size_t kOrder = 4;
constexpr size_t kHypothesisLength = 0, kReferenceLength = 1, kCorrect = 2, kTotal = 2 + kOrder;
using Counts = SentenceCounts<2 + 2 * kOrder>;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_point(char c) {
  return c == '.' || c == ',';
}
// ASCII punctuation but for apostrophe, comma, hyphen and full stop.
bool is_separate(char c) {
  const auto within = [c](char low, char high) { return c >= low && c <= high; };
  return within('{', '~') || within('[', '`') || within(' ', '&') || within('(', '+') || within(':', '@') ||
         c == '/';
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

// Points behind and then before anything but a digit stand alone; so does a hyphen behind a digit. The passes
// come one after the other, each over what the one before left.
std::string separate_points(std::string_view text) {
  std::string behind;
  for (size_t i = 0; i < text.size(); ++i) {
    behind += text[i];
    if (is_digit(text[i]) || i + 1 == text.size() || !is_point(text[i + 1])) continue;
    ((behind += ' ') += text[++i]) += ' ';
  }
  std::string before;
  for (size_t i = 0; i < behind.size(); ++i) {
    if (is_point(behind[i]) && i + 1 < behind.size() && !is_digit(behind[i + 1])) {
      ((before += ' ') += behind[i]) += ' ';
      before += behind[++i];
    } else {
      before += behind[i];
    }
  }
  std::string out;
  for (size_t i = 0; i < before.size(); ++i) {
    out += before[i];
    if (is_digit(before[i]) && i + 1 < before.size() && before[i + 1] == '-') {
      out += " - ";
      ++i;
    }
  }
  return out;
}

// counts[n - 1]: the n-grams of a line of tokens separated by single spaces, as parts of the line.
std::array<NgramCounts, kOrder> count_ngrams(std::string_view line, int64_t* tokens) {
  const std::vector<std::string_view> words = split_words(line);
  std::array<NgramCounts, kOrder> counts;
  for (size_t n = 1; n <= kOrder; ++n)
    for (size_t i = 0; i + n <= words.size(); ++i) {
      const std::string_view& last = words[i + n - 1];
      ++counts[n - 1][{words[i].data(), size_t(last.data() + last.size() - words[i].data())}];
    }
  *tokens = int64_t(words.size());
  return counts;
}

Counts count_sentence(const std::string& hypothesis, const std::string& reference) {
  const std::string tokens = tokenise_13a(hypothesis), reference_tokens = tokenise_13a(reference);
  Counts counts{};
  const auto ngrams = count_ngrams(tokens, &counts[kHypothesisLength]);
  const auto reference_ngrams = count_ngrams(reference_tokens, &counts[kReferenceLength]);
  for (size_t n = 0; n < kOrder; ++n) {
    counts[kCorrect + n] = count_matches(ngrams[n], reference_ngrams[n]);
    counts[kTotal + n] = std::max<int64_t>(0, counts[kHypothesisLength] - int64_t(n));
  }
  return counts;
}

Bleu score_of(const Counts& counts) {
  Bleu bleu;
  bleu.hypothesis_length = counts[kHypothesisLength];
  bleu.reference_length = counts[kReferenceLength];
  const auto length = double(bleu.hypothesis_length), reference = double(bleu.reference_length);
  bleu.brevity_penalty = length >= reference ? 1 : length > 0 ? std::exp(1 - reference / length) : 0;
  if (std::all_of(&counts[kCorrect], &counts[kCorrect] + kOrder,
                  [](int64_t correct) { return correct == 0; }))
    return bleu;
  double smoothing = 1, log_sum = 0;
  for (size_t n = 0; n < kOrder; ++n) {
    const auto total = double(counts[kTotal + n]), correct = double(counts[kCorrect + n]);
    if (total == 0) return bleu;  // no n-gram that long in the whole corpus: the score is 0
    bleu.precisions[n] = correct > 0 ? 100 * correct / total : 100 / ((smoothing *= 2) * total);
    log_sum += std::log(bleu.precisions[n]);
  }
  bleu.score = bleu.brevity_penalty * std::exp(log_sum / kOrder);
  return bleu;
}

}  // namespace

std::string tokenise_13a(std::string_view line) {
  std::string text(line);
  const auto last = split_words(text);
  if (!last.empty()) text.resize(size_t(last.back().data() + last.back().size() - text.data()));
  replace_all(text, "<skipped>", "");
  replace_all(text, "-\n", "");
  replace_all(text, "\n", " ");
  replace_all(text, "&quot;", "\"");
  replace_all(text, "&amp;", "&");
  replace_all(text, "&lt;", "<");
  replace_all(text, "&gt;", ">");
  std::string separated = " ";
  for (const char c : text + " ") {
    if (is_separate(c))
      ((separated += ' ') += c) += ' ';
    else
      separated += c;
  }
  const std::string points = separate_points(separated);
  std::string out;
  for (const auto word : split_words(points)) {
    if (!out.empty()) out += ' ';
    out += word;
  }
  return out;
}

Bleu corpus_bleu(std::span<const std::string> hypotheses, std::span<const std::string> references,
                 const BootstrapOptions& bootstrap) {
  check_lengths(hypotheses.size(), references.size());
  std::vector<Counts> sentences;
  for (size_t i = 0; i < hypotheses.size(); ++i)
    sentences.push_back(count_sentence(hypotheses[i], references[i]));
  Bleu bleu = score_of(sum_of(sentences));
  bleu.confidence =
      bootstrap_interval(sentences, bootstrap, [](const Counts& counts) { return score_of(counts).score; });
  bleu.signature = fmt::format("nrefs:1|bs:{}|seed:{}|case:mixed|eff:no|tok:13a|smooth:exp|by:troupe",
                               bootstrap.resamples, bootstrap.seed);
  return bleu;
}

std::string Bleu::text() const {
  const double ratio = reference_length > 0 ? double(hypothesis_length) / double(reference_length) : 0;
  return fmt::format(
      "BLEU = {:.2f} (95 %: {:.2f} to {:.2f}) {:.1f}/{:.1f}/{:.1f}/{:.1f} (BP = {:.3f} ratio = {:.3f} "
      "hyp_len = {} "
      "ref_len = {})",
      score, confidence.low, confidence.high, precisions[0], precisions[1], precisions[2], precisions[3],
      brevity_penalty, ratio, hypothesis_length, reference_length);
}

}  // namespace troupe::data
