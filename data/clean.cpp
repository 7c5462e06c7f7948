#include "data/clean.hpp"

#include <unicode/brkiter.h>
#include <unicode/bytestream.h>
#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>
#include <xxhash.h>

#include "kernels/base/error.hpp"

namespace troupe::data {
namespace {

bool is_ascii(std::string_view text) {
  unsigned char bits = 0;
  for (const char c : text) bits |= static_cast<unsigned char>(c);
  return bits < 0x80;
}

// Reads the character at *at and moves behind it; negative for bytes that are not UTF-8.
UChar32 next_character(std::string_view text, size_t* at) {
  UChar32 character = 0;
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  U8_NEXT(bytes, *at, text.size(), character);
  return character;
}

void append_utf8(UChar32 character, std::string* out) {
  uint8_t bytes[U8_MAX_LENGTH];
  int32_t size = 0;
  U8_APPEND_UNSAFE(bytes, size, character);
  out->append(reinterpret_cast<const char*>(bytes), size_t(size));
}

bool is_removed(UChar32 character) {
  if (character == 0x200C || character == 0x200D) return false;  // the zero-width joiners make a difference
  const uint32_t category = U_GET_GC_MASK(character);
  return (category & (U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK)) != 0 || U_IS_UNICODE_NONCHAR(character);
}

// White space made single, unwanted characters left out.
std::string filter_characters(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool space = false;
  const auto separate = [&] {
    if (space && !out.empty()) out += ' ';
    space = false;
  };
  for (size_t at = 0; at < text.size();) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte > 0x20 && byte < 0x7f) {
      separate();
      out += text[at++];
      continue;
    }
    UChar32 character = next_character(text, &at);
    if (character < 0) character = 0xFFFD;
    if (u_isUWhiteSpace(character)) {
      space = true;
    } else if (!is_removed(character)) {
      separate();
      append_utf8(character, &out);
    }
  }
  return out;
}

const icu::Normalizer2& normalizer(const icu::Normalizer2* (*get)(UErrorCode&)) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* instance = get(status);
  TROUPE_CHECK(U_SUCCESS(status) && instance != nullptr, "ICU: {}", u_errorName(status));
  return *instance;
}

std::string normalise(const icu::Normalizer2& form, std::string text) {
  if (is_ascii(text)) return text;
  UErrorCode status = U_ZERO_ERROR;
  std::string out;
  icu::StringByteSink<std::string> sink(&out, int32_t(text.size()));
  form.normalizeUTF8(0, {text.data(), int32_t(text.size())}, sink, nullptr, status);
  TROUPE_CHECK(U_SUCCESS(status), "ICU: {}", u_errorName(status));
  return out;
}

const icu::Normalizer2* casefold_form(UErrorCode& status) {
  return icu::Normalizer2::getNFKCCasefoldInstance(status);
}
const icu::Normalizer2* nfc_form(UErrorCode& status) {
  return icu::Normalizer2::getNFCInstance(status);
}
const icu::Normalizer2* nfkc_form(UErrorCode& status) {
  return icu::Normalizer2::getNFKCInstance(status);
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const size_t begin = at;
    if (next_character(text, &at) < 0) return begin;
  }
  return std::string_view::npos;
}

size_t code_points(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

std::string clean_line(std::string_view text, bool compatibility_forms) {
  TROUPE_CHECK(text.size() < (size_t{1} << 30), "a line of {} bytes", text.size());
  std::string out = filter_characters(text);
  if (is_ascii(out)) return out;
  if (!compatibility_forms) return normalise(normalizer(nfc_form), std::move(out));
  // A compatibility form may bring white space of its own.
  const auto& nfkc = normalizer(nfkc_form);
  return normalise(nfkc, filter_characters(normalise(nfkc, std::move(out))));
}

struct SentenceSplitter::Rules {
  std::unique_ptr<icu::BreakIterator> breaks;
};

SentenceSplitter::SentenceSplitter(const std::string& language) : rules_(std::make_unique<Rules>()) {
  UErrorCode status = U_ZERO_ERROR;
  rules_->breaks.reset(icu::BreakIterator::createSentenceInstance(
      icu::Locale(language.empty() ? "en" : language.c_str()), status));
  TROUPE_CHECK(U_SUCCESS(status) && rules_->breaks != nullptr, "ICU: {}", u_errorName(status));
}
SentenceSplitter::~SentenceSplitter() = default;
SentenceSplitter::SentenceSplitter(SentenceSplitter&&) noexcept = default;

std::vector<std::string> SentenceSplitter::split(std::string_view text) {
  const auto unicode = icu::UnicodeString::fromUTF8({text.data(), int32_t(text.size())});
  rules_->breaks->setText(unicode);
  std::vector<std::string> sentences;
  for (int32_t begin = rules_->breaks->first(), end = rules_->breaks->next(); end != icu::BreakIterator::DONE;
       begin = end, end = rules_->breaks->next()) {
    std::string sentence;
    unicode.tempSubStringBetween(begin, end).toUTF8String(sentence);
    while (!sentence.empty() && sentence.back() == ' ') sentence.pop_back();
    if (!sentence.empty()) sentences.push_back(std::move(sentence));
  }
  return sentences;
}

Hash128 text_hash(std::string_view first, std::string_view second) {
  const XXH128_hash_t both[2] = {XXH3_128bits(first.data(), first.size()),
                                 XXH3_128bits(second.data(), second.size())};
  const XXH128_hash_t hash = XXH3_128bits(both, sizeof both);
  return {hash.high64, hash.low64};
}

uint64_t group_hash(std::string_view text) {
  const std::string folded = normalise(normalizer(casefold_form), std::string(text));
  std::string kept;
  kept.reserve(folded.size());
  bool letters = false;
  for (size_t at = 0; at < folded.size();) {
    const auto byte = static_cast<unsigned char>(folded[at]);
    const UChar32 character = byte < 0x80 ? (++at, u_tolower(byte)) : next_character(folded, &at);
    if (u_isdigit(character)) {
      kept += '0';
    } else if (u_isalpha(character) || (U_GET_GC_MASK(character) & U_GC_M_MASK) != 0) {
      append_utf8(character, &kept);
      letters = true;
    }
  }
  const std::string_view hashed = letters ? std::string_view(kept) : text;
  return XXH3_64bits(hashed.data(), hashed.size());
}

}  // namespace troupe::data
