// BLEU and chrF against sacreBLEU's figures for the same sentences (tests/oracle/metrics.py).
#include "data/metrics.hpp"

#include <cmath>

#include <nlohmann/json.hpp>

#include "tests/data/support.hpp"

using namespace troupe;
using namespace troupe::data;

namespace {

nlohmann::json oracle() {
  return nlohmann::json::parse(read_file(std::string(TROUPE_SOURCE_DIR) + "/tests/oracle/metrics.json"));
}

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("lines are cut into tokens as mteval-v13a does") {
  const auto golden = oracle();
  CHECK(golden["tokens_13a"].size() > 10);
  for (const auto& pair : golden["tokens_13a"]) CHECK(tokenise_13a(pair[0].get<std::string>()) == pair[1]);
}

TEST_CASE("BLEU and chrF equal sacreBLEU's") {
  const auto all = oracle();
  CHECK(all["cases"].size() > 10);
  for (const auto& golden : all["cases"]) {
    CAPTURE(golden["name"].get<std::string>());
    const Lines hypotheses = golden["hypotheses"], references = golden["references"];
    const Bleu bleu = corpus_bleu(hypotheses, references, {.resamples = 0});
    CHECK(bleu.score == doctest::Approx(golden["bleu"].get<double>()).epsilon(1e-9));
    CHECK(bleu.brevity_penalty == doctest::Approx(golden["brevity_penalty"].get<double>()).epsilon(1e-9));
    for (size_t n = 0; n < 4; ++n)
      CHECK(bleu.precisions[n] == doctest::Approx(golden["precisions"][n].get<double>()).epsilon(1e-9));
    CHECK(bleu.hypothesis_length == golden["hypothesis_length"]);
    CHECK(bleu.reference_length == golden["reference_length"]);
    CHECK(corpus_chrf(hypotheses, references, {.resamples = 0}).score ==
          doctest::Approx(golden["chrf"].get<double>()).epsilon(1e-9));
  }
}

TEST_CASE("the bootstrap's interval is as wide as sacreBLEU's and the same every time") {
  const auto golden = oracle();
  Lines hypotheses, references;
  for (const auto& one : golden["cases"]) {
    if (one["name"] != "all") continue;
    for (int i = 0; i < 10; ++i) {
      const Lines h = one["hypotheses"], r = one["references"];
      hypotheses.insert(hypotheses.end(), h.begin(), h.end());
      references.insert(references.end(), r.begin(), r.end());
    }
  }
  const auto check = [&](const Confidence& ours, const nlohmann::json& theirs, double score) {
    CHECK(ours.low < score);
    CHECK(ours.high > score);
    CHECK(ours.half_width() == doctest::Approx(theirs["half_width"].get<double>()).epsilon(0.1));
    CHECK((ours.low + ours.high) / 2 == doctest::Approx(theirs["mean"].get<double>()).epsilon(0.02));
  };
  const Bleu bleu = corpus_bleu(hypotheses, references);
  const Chrf chrf = corpus_chrf(hypotheses, references);
  check(bleu.confidence, golden["intervals_of_all_ten_times"]["bleu"], bleu.score);
  check(chrf.confidence, golden["intervals_of_all_ten_times"]["chrf"], chrf.score);
  const Bleu again = corpus_bleu(hypotheses, references);
  CHECK(again.confidence.low == bleu.confidence.low);
  CHECK(again.confidence.high == bleu.confidence.high);
  CHECK(bleu.text().find("BP = ") != std::string::npos);
  CHECK(bleu.signature.find("tok:13a|smooth:exp") != std::string::npos);
}

TEST_CASE("measuring refuses unequal numbers of lines, and none at all") {
  const Lines one = {"a"}, two = {"a", "b"};
  test::check_error(ErrorKind::usage, {"1 translations", "2 references"}, [&] { corpus_bleu(one, two); });
  test::check_error(ErrorKind::usage, {"none"}, [] { corpus_chrf({}, {}); });
}
