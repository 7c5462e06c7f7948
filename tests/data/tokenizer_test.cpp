#include "data/tokenizer.hpp"

#include <thread>

#include "data/clean.hpp"
#include "tests/data/support.hpp"

using namespace troupe;
using namespace troupe::data;

namespace {

std::vector<std::string> sentences() {
  std::vector<std::string> all;
  for (const auto& document : test::made_up_pairs(400)) {
    all.push_back(document.source[0]);
    all.push_back(document.target[0]);
  }
  return all;
}

}  // namespace

TEST_CASE("a trained tokenizer is the same each time and gives text back unchanged") {
  for (const auto kind : {TokenizerKind::unigram, TokenizerKind::bpe}) {
    const TokenizerOptions options{.kind = kind, .vocabulary = 320};
    const std::string model = train_tokenizer(options, sentences());
    CHECK(model == train_tokenizer(options, sentences()));
    const Tokenizer tokenizer(model);
    CHECK(tokenizer.digest().size() == 64);
    CHECK(tokenizer.vocabulary_size() <= 320);
    CHECK(tokenizer.pad_id() == 0);
    CHECK(tokenizer.unk_id() == 1);
    CHECK(tokenizer.bos_id() == 2);
    CHECK(tokenizer.eos_id() == 3);
    for (const std::string text : {"Sentence red house.", "Unseen: Ж, 猫, 🙂 and \u00a9 1234!", "", "x",
                                   "Où  est   l’été ?", "▁ odd ▁▁"}) {
      const std::string clean = clean_line(text);
      CAPTURE(clean);
      const auto ids = tokenizer.encode(clean);
      for (const int32_t id : ids) CHECK(id != tokenizer.unk_id());
      if (clean.find("▁") == std::string::npos) CHECK(tokenizer.decode(ids) == clean);
    }
  }
}

TEST_CASE("remembering words changes no token") {
  for (const auto kind : {TokenizerKind::unigram, TokenizerKind::bpe, TokenizerKind::word}) {
    const Tokenizer tokenizer(train_tokenizer({.kind = kind, .vocabulary = 400}, sentences()));
    CHECK(tokenizer.word_by_word() == (kind == TokenizerKind::bpe));
    CachedEncoder encoder(tokenizer);
    auto text = sentences();
    for (const char* odd : {"", " ", "  two  spaces ", "Ж 猫🙂 été\u00a0! ▁a▁ ▁", "▁ ▁▁ b",
                            "unseenunseenunseen 1234567890"})
      text.emplace_back(odd);
    text.push_back(std::string(5000, 'w') + " end");
    for (int pass = 0; pass < 2; ++pass)
      for (const auto& sentence : text) {
        CAPTURE(sentence);
        CHECK(encoder.encode(sentence) == tokenizer.encode(sentence));
      }
  }
}

TEST_CASE("decoding leaves special tokens out and refuses ids that are none") {
  const Tokenizer tokenizer(train_tokenizer({.kind = TokenizerKind::bpe, .vocabulary = 320}, sentences()));
  std::vector<int32_t> ids = tokenizer.encode("red house");
  ids.insert(ids.begin(), tokenizer.bos_id());
  ids.push_back(tokenizer.eos_id());
  ids.push_back(tokenizer.pad_id());
  CHECK(tokenizer.decode(ids) == "red house");
  test::check_error(ErrorKind::usage, {"-1"}, [&] { tokenizer.decode(std::vector<int32_t>{-1}); });
  test::check_error(ErrorKind::usage, {"99999"}, [&] { tokenizer.decode(std::vector<int32_t>{99999}); });
}

TEST_CASE("several threads encode with one tokenizer and get the same") {
  const Tokenizer tokenizer(
      train_tokenizer({.kind = TokenizerKind::unigram, .vocabulary = 320}, sentences()));
  const auto text = sentences();
  std::vector<std::vector<std::vector<int32_t>>> results(4);
  {
    std::vector<std::jthread> threads;
    for (auto& result : results)
      threads.emplace_back([&] {
        for (const auto& sentence : text) result.push_back(tokenizer.encode(sentence));
      });
  }
  for (const auto& result : results) CHECK(result == results[0]);
}

TEST_CASE("a word tokenizer has one token a word") {
  const Tokenizer tokenizer(
      train_tokenizer({.kind = TokenizerKind::word, .vocabulary = 100, .byte_fallback = false}, sentences()));
  CHECK(tokenizer.encode("red house").size() == 2);
  CHECK(tokenizer.encode("unheard").at(0) == tokenizer.unk_id());
}

TEST_CASE("a vocabulary in which a text's characters have no room is refused with the least that has") {
  std::string alphabet;  // of 128 letters, of two bytes each
  for (int i = 0; i < 128; ++i) {
    alphabet += char(0xd0 + i / 64);
    alphabet += char(0x80 + i % 64);
  }
  std::vector<std::string> text;
  for (size_t first = 0; first < alphabet.size(); first += 2) {
    text.push_back(alphabet.substr(first) + alphabet.substr(0, first));
    for (size_t at = alphabet.size() - 16; at > 0; at -= 16) text.back().insert(at, " ");
  }
  for (const auto kind : {TokenizerKind::unigram, TokenizerKind::bpe}) {
    std::string why;
    try {
      train_tokenizer({.kind = kind, .vocabulary = 300}, text);
    } catch (const Error& refused) {
      why = refused.what();
    }
    CAPTURE(why);
    const std::string before = "256 pieces for bytes take ";
    REQUIRE(why.find(before) != std::string::npos);
    const int32_t least = std::stoi(why.substr(why.find(before) + before.size()));
    CHECK(Tokenizer(train_tokenizer({.kind = kind, .vocabulary = least}, text)).vocabulary_size() <= least);
    CHECK_THROWS_AS(train_tokenizer({.kind = kind, .vocabulary = least - 1}, text), Error);
  }
}

TEST_CASE("impossible tokenizers are refused with the way out") {
  const auto text = sentences();
  const auto train = [&](TokenizerOptions options) { return train_tokenizer(options, text); };
  test::check_error(ErrorKind::usage, {"vocabulary of 3", "272"}, [&] { train({.vocabulary = 3}); });
  test::check_error(ErrorKind::usage, {"coverage 2"}, [&] { train({.character_coverage = 2}); });
  test::check_error(ErrorKind::usage, {"no text"}, [] { train_tokenizer({}, {}); });
  test::check_error(ErrorKind::corrupt, {"m.model", "not a SentencePiece model"},
                    [] { Tokenizer("hello", "m.model"); });
  test::check_error(ErrorKind::corrupt, {"tokenizer"}, [] { Tokenizer(""); });
  const test::TemporaryFolder folder;
  test::check_error(ErrorKind::file, {"gone.model"}, [&] { Tokenizer::load(folder / "gone.model"); });
  test::check_error(ErrorKind::file, {folder.path()}, [&] { Tokenizer::load(folder.path()); });
  std::string model = train({.vocabulary = 320});
  model.resize(model.size() / 2);
  CHECK_THROWS_AS(Tokenizer{model}, Error);
}
