// Text cleaning on ICU: what every line goes through before it is counted, compared or tokenised, in
// `prepare` as in `translate`. Pure functions, thread-safe.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::data {

// Offset of the first byte that is not valid UTF-8; npos when all is.
size_t find_invalid_utf8(std::string_view text);
size_t code_points(std::string_view text);

// Normal form NFC (or NFKC), so that equal text is equal bytes; control, format, private-use and
// non-characters removed (zero-width joiners stay); every run of white space one space; none at the ends.
// Invalid bytes become U+FFFD. Applying it twice changes nothing more.
std::string clean_line(std::string_view text, bool compatibility_forms = false);

// Cuts cleaned text into sentences by Unicode's rules (UAX 29) for a language ("", "en", "fr", ...). A space
// at a cut belongs to neither side; some cuts have none, as those behind the full stops of Chinese. Costly to
// make, so made once a chunk; belongs to one thread.
class SentenceSplitter {
 public:
  explicit SentenceSplitter(const std::string& language);
  ~SentenceSplitter();
  SentenceSplitter(SentenceSplitter&&) noexcept;
  std::vector<std::string> split(std::string_view text);

 private:
  struct Rules;
  std::unique_ptr<Rules> rules_;
};

struct Hash128 {
  uint64_t high = 0, low = 0;
  auto operator<=>(const Hash128&) const = default;
};
// Of the exact text of both: ("ab", "c") differs from ("a", "bc").
Hash128 text_hash(std::string_view first, std::string_view second = {});
// Of what is left when case, compatibility forms, punctuation and white space are ignored and all digits are
// one: sentences that agree in it count as the same when sets are kept apart. Text without letters hashes as
// it is.
uint64_t group_hash(std::string_view text);

}  // namespace troupe::data
