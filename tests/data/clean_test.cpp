#include "data/clean.hpp"

#include <set>

#include <doctest/doctest.h>

using namespace troupe::data;

TEST_CASE("cleaning normalises, drops what cannot be seen and makes white space single") {
  const struct {
    const char* name;
    std::string from, nfc, nfkc;
  } table[] = {
      {"plain text stays", "A plain line, as it is.", "A plain line, as it is.", "A plain line, as it is."},
      {"nothing", "", "", ""},
      {"white space alone", " \t\r\n ", "", ""},
      {"runs of white space", "  a \t b\n\nc  ", "a b c", "a b c"},
      {"no-break, thin and ideographic spaces", "a\u00a0b\u202f!\u3000c", "a b ! c", "a b ! c"},
      {"line and paragraph separators", "a\u2028b\u2029c\u0085d", "a b c d", "a b c d"},
      {"control characters", std::string("a\x01\x1b[0mb\x7f") + std::string(1, '\0') + "c", "a[0mbc",
       "a[0mbc"},
      {"byte-order mark and soft hyphen", "\ufeffco\u00adop", "coop", "coop"},
      {"direction marks", "a\u200eb\u202ec\u2066d", "abcd", "abcd"},
      {"zero-width space goes, joiners stay", "a\u200bb\u200cc\u200dd", "ab\u200cc\u200dd",
       "ab\u200cc\u200dd"},
      {"private use and non-characters", "a\ue000b\ufdd0c\uffffd", "abcd", "abcd"},
      {"decomposed accents compose", "e\u0301te\u0301", "été", "été"},
      {"a mark composes over what was dropped between", "e\u00ad\u0301", "é", "é"},
      {"Hangul composes", "\u1112\u1161\u11ab", "한", "한"},
      {"ligatures and full width", "\ufb01n \uff21\uff22", "\ufb01n \uff21\uff22", "fin AB"},
      {"a form with a space in it", "a\u00a8b", "a\u00a8b", "a \u0308b"},
      {"superscripts", "x\u00b2", "x\u00b2", "x2"},
      {"invalid bytes",
       "a\xff"
       "b\xc3",
       "a\ufffdb\ufffd", "a\ufffdb\ufffd"},
      {"a surrogate in UTF-8", "a\xed\xa0\x80z", "a\ufffd\ufffd\ufffdz", "a\ufffd\ufffd\ufffdz"},
      {"beyond the basic plane", "🙂 𝔘", "🙂 𝔘", "🙂 U"},
  };
  for (const auto& row : table) {
    CAPTURE(row.name);
    CHECK(clean_line(row.from) == row.nfc);
    CHECK(clean_line(row.from, true) == row.nfkc);
    CHECK(clean_line(clean_line(row.from)) == row.nfc);
    CHECK(clean_line(clean_line(row.from, true), true) == row.nfkc);
  }
}

TEST_CASE("the first byte that is not UTF-8 is found") {
  const struct {
    std::string text;
    size_t at;
  } table[] = {{"", std::string::npos},
               {"abc", std::string::npos},
               {"été 🙂", std::string::npos},
               {"ab\xe9t\xe9", 2},
               {"\x80", 0},
               {"a\xc0\xafz", 1},
               {"ok\xf5\x80\x80\x80", 2},
               {"cut \xe2\x82", 4},
               {std::string("nul\0", 4), std::string::npos}};
  for (const auto& row : table) CHECK(find_invalid_utf8(row.text) == row.at);
  CHECK(code_points("été 🙂") == 5);
}

TEST_CASE("sentences are cut and join to the text again") {
  SentenceSplitter english("en"), french("fr"), any("");
  CHECK(english.split("One is here. Two follows! Is it three? Yes.") ==
        std::vector<std::string>{"One is here.", "Two follows!", "Is it three?", "Yes."});
  CHECK(french.split("Il pleut. Où est-elle ? Ici.").size() == 3);
  CHECK(any.split("Version 2.5 is out.").size() == 1);
  CHECK(any.split("").empty());
  for (const std::string text : {"A b. C d? E f! G", "No end", "Dots... and more. Then this."}) {
    std::string joined;
    for (const auto& sentence : english.split(text)) joined += (joined.empty() ? "" : " ") + sentence;
    CHECK(joined == text);
  }
}

TEST_CASE("exact hashes tell texts apart, group hashes only what matters") {
  CHECK(text_hash("ab", "c") != text_hash("a", "bc"));
  CHECK(text_hash("a", "b") != text_hash("b", "a"));
  CHECK(text_hash("a") != text_hash("", "a"));
  CHECK(text_hash("same", "pair") == text_hash("same", "pair"));
  const char* alike[] = {"The library libfoo1, version 2.", "the LIBRARY libfoo7 - version 9",
                         "The  library: \"libfoo3\" (version 5)!"};
  for (const char* text : alike) CHECK(group_hash(text) == group_hash(alike[0]));
  CHECK(group_hash("the ﬁle") == group_hash("The File"));
  CHECK(group_hash("Straße") == group_hash("STRASSE"));
  const std::set<uint64_t> different = {group_hash("version 12"), group_hash("version 1"), group_hash("été"),
                                        group_hash("ete"),        group_hash("..."),       group_hash("!"),
                                        group_hash("1"),          group_hash("2")};
  CHECK(different.size() == 8);
}
