// A language model from plain text to its evaluation.
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tests/support/process.hpp"

using namespace troupe::test;

namespace {

constexpr char kDecoderJob[] =
    "[model]\nfamily = \"decoder\"\nwidth = 16\ninner = 16\nheads = 2\nencoder_layers = 0\n"
    "decoder_layers = 1\nmax_length = 64\ncompute = \"f32\"\n[training]\nsteps = 2\nslots = 2\n";

// Paragraphs that all differ, not in their digits alone, with a blank line between two.
std::string plain_text(int paragraphs) {
  std::string text;
  for (int i = 0; i < paragraphs; ++i) {
    const std::string name{char('a' + i % 26), char('a' + i / 26 % 26)};
    text += "The house of " + name + " stands in this street.\nIts door is green, and so are the doors of " +
            name + name + ".\n\n";
  }
  return text;
}

std::string done(std::vector<std::string> words) {
  words.insert(words.begin(), TROUPE_PROGRAM);
  const ProcessResult result = run(words);
  CAPTURE(result.err);
  REQUIRE(result.code == 0);
  return result.out;
}

}  // namespace

TEST_CASE("a language model is trained on windows of plain text and evaluated without translating") {
  const TemporaryFolder folder;
  const std::string data = folder / "data", out = folder / "run";
  done({"prepare", "--text", folder.write("book.txt", plain_text(400)), "--split", "token", "--out", data,
        "--vocabulary", "340", "--max-length", "64", "--pack-tokens", "64"});
  const std::string trained = done({"train", "--job", folder.write("job.toml", kDecoderJob), "--data", data,
                                    "--out", out, "--set", "evaluation.every=1", "--threads", "1"});
  CHECK(trained.find("weights ") != std::string::npos);

  for (const char* split : {"test", "valid"}) {
    const std::string said = done({"evaluate", "--checkpoint", out, "--data", data, "--split", split});
    CAPTURE(said);
    for (const char* word : {"loss ", "perplexity ", "accuracy "})
      CHECK(said.find(word) != std::string::npos);
    for (const char* word : {"BLEU =", "chrF2 =", "translated in"})
      CHECK(said.find(word) == std::string::npos);
  }
  const auto json = nlohmann::json::parse(done({"evaluate", "--checkpoint", out, "--data", data, "--json"}));
  CHECK(json["perplexity"].get<double>() > 1);
  CHECK(json["tokens"].get<int64_t>() > 0);
  CHECK_FALSE(json.contains("bleu"));
}
