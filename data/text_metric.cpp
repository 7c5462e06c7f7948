#include "data/text_metric.hpp"

#include <unicode/utf8.h>

namespace troupe::data {
namespace {

bool is_space(UChar32 c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

}  // namespace

std::vector<std::string_view> split_words(std::string_view line) {
  std::vector<std::string_view> words;
  const auto* bytes = reinterpret_cast<const uint8_t*>(line.data());
  size_t begin = 0;
  for (size_t at = 0; at < line.size();) {
    const size_t here = at;
    UChar32 character = 0;
    U8_NEXT(bytes, at, line.size(), character);
    if (!is_space(character)) continue;
    if (here > begin) words.push_back(line.substr(begin, here - begin));
    begin = at;
  }
  if (line.size() > begin) words.push_back(line.substr(begin));
  return words;
}

int64_t count_matches(const NgramCounts& hypothesis, const NgramCounts& reference) {
  int64_t matches = 0;
  for (const auto& [ngram, count] : hypothesis) {
    const auto found = reference.find(ngram);
    if (found != reference.end()) matches += std::min(count, found->second);
  }
  return matches;
}

}  // namespace troupe::data
