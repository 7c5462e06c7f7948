#include "data/samples.hpp"

#include <algorithm>

#include "kernels/base/error.hpp"

namespace troupe::data {
namespace {
constexpr uint64_t kPartsMax = 1 << 16;  // of one document
constexpr size_t kRatioSlack = 10;       // code points
}  // namespace

SampleCutter::SampleCutter(const TokeniseWork& work) : work_(work) {
  if (work.unit != SampleUnit::sentence) return;
  source_sentences_.emplace(work.source_language);
  target_sentences_.emplace(work.target_language);
}

const char* SampleCutter::reason_to_drop(std::string_view source, std::string_view target) const {
  const bool pairs = work_.kind == DatasetKind::pairs;
  if (target.empty() || (pairs && source.empty())) return "empty";
  const size_t target_size = code_points(target), source_size = pairs ? code_points(source) : target_size;
  const auto [shorter, longer] = std::minmax(source_size, target_size);
  if (shorter < work_.clean.characters_min) return "too_short";
  if (work_.unit != SampleUnit::token && longer > work_.clean.characters_max) return "too_long";
  if (double(longer) > work_.clean.length_ratio_max * double(shorter) + double(kRatioSlack))
    return "length_ratio";
  if (pairs && work_.clean.drop_identical && source == target) return "identical_sides";
  return nullptr;
}

void SampleCutter::cut(const RawDocument& document, uint64_t number, Counts* dropped,
                       const std::function<void(const TextPart&)>& use) {
  const bool pairs = work_.kind == DatasetKind::pairs;
  TROUPE_CHECK(number < (uint64_t{1} << 48) && (!pairs || document.source.size() == document.target.size()));
  uint64_t part = 0;
  const auto emit = [&](std::string_view source, std::string_view target, uint64_t split_hash) {
    const char* reason = part == kPartsMax ? "beyond_65536_parts" : reason_to_drop(source, target);
    if (reason != nullptr)
      ++(*dropped)[reason];
    else
      use({number << 16 | part++, split_hash, source, target});
  };
  for (size_t i = 0; i < document.target.size(); ++i) {
    const std::string target = clean_line(document.target[i], work_.clean.compatibility_forms);
    const std::string source = pairs ? clean_line(document.source[i], work_.clean.compatibility_forms) : "";
    const uint64_t split_hash = group_hash(pairs ? source : target);
    if (work_.unit == SampleUnit::sentence) {
      const auto targets = target_sentences_->split(target);
      const auto sources =
          pairs ? source_sentences_->split(source) : std::vector<std::string>(targets.size());
      if (sources.size() == targets.size() && !targets.empty()) {
        for (size_t k = 0; k < targets.size(); ++k) emit(sources[k], targets[k], split_hash);
        continue;
      }
    }
    emit(source, target, split_hash);
  }
}

}  // namespace troupe::data
