// Translation quality: corpus BLEU (Papineni et al. 2002; 13a tokenisation, exponential smoothing) and chrF2
// (Popovic 2015, 2017), equal to sacreBLEU's defaults (Post 2018) to two decimals. Pure functions,
// thread-safe. REQUIRES as many references as hypotheses, one reference each; Error(usage) otherwise.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace troupe::data {

// 95 % interval from bootstrap resampling of sentences (Koehn 2004). Resample r draws by Philox(seed, r,
// position): the same numbers on every machine.
struct Confidence {
  double low = 0, high = 0;
  double half_width() const { return (high - low) / 2; }
};
struct BootstrapOptions {
  uint32_t resamples = 1000;  // 0: no interval is computed
  uint64_t seed = 12345;
};

struct Bleu {
  double score = 0;                    // 0..100
  std::array<double, 4> precisions{};  // in percent, smoothed
  double brevity_penalty = 0;
  int64_t hypothesis_length = 0;  // in 13a tokens
  int64_t reference_length = 0;
  Confidence confidence;
  std::string signature;     // how it was computed, in sacreBLEU's form
  std::string text() const;  // "BLEU = 31.42 (95 %: 30.4 to 32.5) 62.1/38.0/25.5/17.6 (BP = 0.981 ...)"
};
struct Chrf {
  double score = 0;  // 0..100, character order 6, beta 2
  Confidence confidence;
  std::string signature;
  std::string text() const;
};

Bleu corpus_bleu(std::span<const std::string> hypotheses, std::span<const std::string> references,
                 const BootstrapOptions& bootstrap = {});
Chrf corpus_chrf(std::span<const std::string> hypotheses, std::span<const std::string> references,
                 const BootstrapOptions& bootstrap = {});

// mteval-v13a tokenisation: tokens separated by single spaces.
std::string tokenise_13a(std::string_view line);

}  // namespace troupe::data
