#include <algorithm>
#include <fstream>
#include <sstream>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "actors/inference/translator.hpp"
#include "data/files.hpp"
#include "data/tiny.hpp"
#include "kernels/cpu/backend.hpp"
#include "model/checkpoint.hpp"
#include "model/record.hpp"
#include "model/step.hpp"
#include "tests/cli/mistake.hpp"

using namespace troupe;
using namespace troupe::test;

namespace {

// The made-up language and a model trained on it in this process, with its checkpoint.
struct TrainedTiny {
  TemporaryFolder folder;
  std::string data = folder / "data", checkpoint;
  std::shared_ptr<const data::Dataset> dataset;

  // `base`: the family and what else is not set here.
  explicit TrainedTiny(int64_t steps, const model::ModelConfig& base = {}, int64_t max_length = 32) {
    data::TinyOptions language;
    language.language_model = base.family == model::Family::decoder;
    data::write_tiny_dataset(data, language);
    dataset = data::Dataset::open(data);
    const auto backend = kernels::make_cpu_backend();
    const auto stream = backend->create_stream();
    model::CheckpointInfo info;
    info.tokenizer = dataset->tokenizer().model_bytes();
    model::ModelConfig& config = info.model;
    config = base;
    config.vocabulary = dataset->tokenizer().vocabulary_size();
    config.width = 64;
    config.inner = 128;
    config.heads = 4;
    config.decoder_layers = 2;
    config.encoder_layers = language.language_model ? 0 : 2;
    config.max_length = max_length;
    config.dropout = 0;
    config.compute = kernels::DType::f32;
    const auto shape = model::make_model(config);
    auto state = model::initial_state(*backend, *stream, *shape, 1);
    model::StepOptions options;
    options.slots = 2;
    options.optimizer.schedule = {model::ScheduleKind::inverse_square_root, 4e-3, 50, 0, 0, 0};
    const auto batches = [&](int64_t step, uint32_t slot) {
      return dataset->slot_batch(1, uint64_t(step), slot, 2);
    };
    model::train_one_process(*backend, *shape, options, batches, steps, state, {});
    checkpoint = model::checkpoint_path(folder.path(), steps, "test").string();
    model::save_checkpoint(checkpoint, info, state);
  }
};

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string joined(const std::vector<data::TextSample>& samples) {
  std::string text;
  for (const auto& sample : samples) text += sample.source + "\n";
  return text;
}

}  // namespace

TEST_CASE("a model trained on the made-up language translates and evaluates sentences it has not seen") {
  const TrainedTiny tiny(400);
  const auto samples = tiny.dataset->texts(data::Split::test);
  const std::string input = joined(samples);

  const ProcessResult greedy = run({TROUPE_PROGRAM, "translate", "--checkpoint", tiny.checkpoint}, input);
  CAPTURE(greedy.err);
  REQUIRE(greedy.code == 0);
  const auto translations = lines_of(greedy.out);
  REQUIRE(translations.size() == samples.size());
  size_t right = 0;
  for (size_t i = 0; i < samples.size(); ++i) right += translations[i] == samples[i].target ? 1 : 0;
  CHECK(right > samples.size() / 2);

  {
    INFO(
        "the folder finds the same checkpoint; batches and threads change nothing; beam 1 of n best is "
        "greedy");
    const auto again = run({TROUPE_PROGRAM, "translate", "--checkpoint", tiny.folder.path(), "--batch", "7",
                            "--threads", "3", "--beam", "1"},
                           input);
    CHECK(again.out == greedy.out);
  }
  {
    INFO("empty lines, Windows line ends and an unended last line keep their places");
    const std::string& a = samples[0].source;
    const auto result =
        run({TROUPE_PROGRAM, "translate", "--checkpoint", tiny.checkpoint}, "\n" + a + "\r\n \n" + a);
    const std::vector<std::string> expected{"", translations[0], "", translations[0]};
    CHECK(lines_of(result.out) == expected);
    CHECK(run({TROUPE_PROGRAM, "translate", "--checkpoint", tiny.checkpoint}, "").out.empty());
    const auto numbered = [&](const char* count) {
      return lines_of(run({TROUPE_PROGRAM, "translate", "--checkpoint", tiny.checkpoint, "--beam", "2",
                           "--n-best", count},
                          "\n" + a + "\n")
                          .out);
    };
    CHECK(numbered("2").size() == 4);
    REQUIRE(numbered("1").size() == 2);
    CHECK(numbered("1")[1].starts_with("2\t"));
  }
  {
    INFO("n best come numbered and sorted by score");
    const auto result =
        run({TROUPE_PROGRAM, "translate", "--checkpoint", tiny.checkpoint, "--beam", "4", "--n-best", "3"},
            samples[0].source + "\n" + samples[1].source + "\n");
    const auto lines = lines_of(result.out);
    REQUIRE(lines.size() == 6);
    double before = 0;
    for (size_t i = 0; i < lines.size(); ++i) {
      std::istringstream fields(lines[i]);
      size_t number = 0;
      double score = 1;
      fields >> number >> score;
      CHECK(number == 1 + i / 3);
      if (i % 3 > 0) CHECK(score <= before);
      before = score;
    }
  }
  {
    INFO("a line longer than the model takes is cut, and that is said");
    std::string longest;
    for (int i = 0; i < 40; ++i) longest += samples[size_t(i)].source + " ";
    const auto result =
        run({TROUPE_PROGRAM, "translate", "--checkpoint", tiny.checkpoint}, "\n" + longest + "\n");
    CHECK(result.code == 0);
    CHECK(lines_of(result.out).size() == 2);
    CHECK(result.err.find("line 2 is longer than the 31 tokens") != std::string::npos);
  }
  {
    INFO("lines before one without end are still translated");
    const std::string file =
        tiny.folder.write("endless", samples[0].source + "\n" + std::string(3 << 20, 'a'));
    const auto result =
        run({"sh", "-c", "'" TROUPE_PROGRAM "' translate --checkpoint '" + tiny.checkpoint + "' < " + file});
    CHECK(result.code == 2);
    CHECK(result.out == translations[0] + "\n");
    CHECK(result.err.find("line 2 of the input is longer than") != std::string::npos);
  }
  {
    INFO("with 8-bit products an output does not depend on the batch, and evaluate scores the same");
    const auto translate8 = [&](const std::string& batch, const std::string& threads) {
      return run({TROUPE_PROGRAM, "translate", "--checkpoint", tiny.checkpoint, "--int8", "--beam", "3",
                  "--n-best", "2", "--batch", batch, "--threads", threads},
                 joined(samples));
    };
    const auto alone = translate8("1", "1");
    REQUIRE(alone.code == 0);
    CHECK(lines_of(alone.out).size() == 2 * samples.size());
    CHECK(translate8("64", "2").out == alone.out);
    CHECK(translate8("7", "3").out == alone.out);
    const std::string exported = tiny.folder / "tiny-int8.troupe";
    const auto written =
        run({TROUPE_PROGRAM, "export", "--checkpoint", tiny.folder.path(), "--int8", "--out", exported});
    CAPTURE(written.err);
    REQUIRE(written.code == 0);
    CHECK(written.out.find("i8 weights") != std::string::npos);
    for (const bool asked : {false, true}) {
      std::vector<std::string> words{TROUPE_PROGRAM, "translate", "--checkpoint", exported,
                                     "--beam",       "3",         "--n-best",     "2"};
      if (asked) words.emplace_back("--int8");
      CHECK(run(words, joined(samples)).out == alone.out);
    }
    const auto scored = run({TROUPE_PROGRAM, "evaluate", "--checkpoint", tiny.checkpoint, "--data", tiny.data,
                             "--json", "--int8"});
    REQUIRE(scored.code == 0);
    CHECK(nlohmann::json::parse(scored.out)["bleu"]["score"].get<double>() > 50);
  }
  {
    INFO("a model computes in the type that is asked for, from the checkpoint and exported");
    const auto scored_in = [&](const std::string& checkpoint, std::vector<std::string> more) {
      std::vector<std::string> words{TROUPE_PROGRAM, "translate", "--checkpoint", checkpoint,
                                     "--beam",       "2",         "--n-best",     "2"};
      words.insert(words.end(), more.begin(), more.end());
      const auto result = run(words, input);
      CAPTURE(result.err);
      REQUIRE(result.code == 0);
      return result.out;
    };
    const std::string trained = scored_in(tiny.checkpoint, {});
    CHECK(scored_in(tiny.checkpoint, {"--compute", "f32"}) == trained);
    for (const std::vector<std::string>& precision :
         {std::vector<std::string>{"--compute", "bf16"}, {"--compute", "bf16", "--int8"}}) {
      const std::string rounded = scored_in(tiny.checkpoint, precision);
      CHECK(rounded != trained);
      const std::string exported = tiny.folder / "exported-bf16";
      std::vector<std::string> words{TROUPE_PROGRAM,  "export", "--checkpoint",
                                     tiny.checkpoint, "--out",  exported};
      words.insert(words.end(), precision.begin(), precision.end());
      REQUIRE(run(words).code == 0);
      CHECK(scored_in(exported, {}) == rounded);
      CHECK(scored_in(exported, precision) == rounded);
    }
    const auto perplexity = [&](const std::string& compute) {
      const auto result = run({TROUPE_PROGRAM, "evaluate", "--checkpoint", tiny.checkpoint, "--data",
                               tiny.data, "--json", "--samples", "1", "--compute", compute});
      REQUIRE(result.code == 0);
      return nlohmann::json::parse(result.out)["perplexity"].get<double>();
    };
    CHECK(perplexity("bf16") != perplexity("f32"));
    CHECK(perplexity("bf16") == doctest::Approx(perplexity("f32")).epsilon(0.02));
  }
  {
    INFO("evaluate scores what translate says, and its loss falls below that of a uniform guess");
    const std::string file = tiny.folder / "translations.txt";
    const auto result = run({TROUPE_PROGRAM, "evaluate", "--checkpoint", tiny.checkpoint, "--data", tiny.data,
                             "--json", "--output", file});
    CAPTURE(result.err);
    REQUIRE(result.code == 0);
    const auto report = nlohmann::json::parse(result.out);
    CHECK(report["sentences"] == samples.size());
    CHECK(report["tokens"] == tiny.dataset->info(data::Split::test).target_tokens);
    CHECK(report["perplexity"].get<double>() < 5);
    CHECK(report["bleu"]["score"].get<double>() > 50);
    CHECK(report["bleu"]["low"].get<double>() <= report["bleu"]["score"].get<double>());
    CHECK(run({"cat", file}).out == greedy.out);
    const auto people = run({TROUPE_PROGRAM, "evaluate", "--checkpoint", tiny.checkpoint, "--data", tiny.data,
                             "--split", "valid", "--samples", "5", "--show", "2"});
    CHECK(people.out.find("perplexity") != std::string::npos);
    CHECK(people.out.find("reference    " + tiny.dataset->texts(data::Split::valid)[2].target) !=
          std::string::npos);
    CHECK(people.out.find("5 sentences translated") != std::string::npos);
  }
}

TEST_CASE("a model with RMS norm and rotary positions learns the made-up language and is exported") {
  model::ModelConfig config;
  config.norm_kind = kernels::NormKind::rms;
  config.positions = model::Positions::rotary;
  const TrainedTiny tiny(400, config);
  const auto samples = tiny.dataset->texts(data::Split::test);
  const auto translate = [&](const std::string& checkpoint, std::vector<std::string> more) {
    std::vector<std::string> words{TROUPE_PROGRAM, "translate", "--checkpoint", checkpoint};
    words.insert(words.end(), more.begin(), more.end());
    const auto result = run(words, joined(samples));
    CAPTURE(result.err);
    REQUIRE(result.code == 0);
    return result.out;
  };
  const std::string greedy = translate(tiny.checkpoint, {});
  const auto translations = lines_of(greedy);
  REQUIRE(translations.size() == samples.size());
  size_t right = 0;
  for (size_t i = 0; i < samples.size(); ++i) right += translations[i] == samples[i].target ? 1 : 0;
  CHECK(right > samples.size() / 2);
  CHECK(translate(tiny.checkpoint, {"--batch", "7", "--threads", "3"}) == greedy);

  const std::string exported = tiny.folder / "exported", int8 = tiny.folder / "int8";
  for (const auto& [path, more] :
       {std::pair<std::string, std::vector<std::string>>{exported, {}}, {int8, {"--int8"}}}) {
    std::vector<std::string> words{TROUPE_PROGRAM, "export", "--checkpoint", tiny.checkpoint, "--out", path};
    words.insert(words.end(), more.begin(), more.end());
    REQUIRE(run(words).code == 0);
  }
  CHECK(translate(exported, {"--beam", "3"}) == translate(tiny.checkpoint, {"--beam", "3"}));
  CHECK(translate(int8, {"--beam", "3"}) == translate(tiny.checkpoint, {"--beam", "3", "--int8"}));
  const auto scored =
      run({TROUPE_PROGRAM, "evaluate", "--checkpoint", tiny.checkpoint, "--data", tiny.data, "--json"});
  REQUIRE(scored.code == 0);
  CHECK(nlohmann::json::parse(scored.out)["bleu"]["score"].get<double>() > 50);
}

TEST_CASE("a model of text in compatibility forms takes it in any form, also when exported") {
  const TemporaryFolder folder;
  std::string source, target;
  for (int i = 0; i < 300; ++i) {
    source += fmt::format("file {} of five", i * i) + "\n";
    target += fmt::format("dosiero {} el kvin", i * i) + "\n";
  }
  const std::string data = folder / "data", out = folder / "run", exported = folder / "exported";
  const std::string job = folder.write(
      "job.toml",
      "[model]\nwidth = 16\ninner = 16\nheads = 2\nencoder_layers = 1\ndecoder_layers = 1\nmax_length = 64\n"
      "compute = \"f32\"\n[training]\nsteps = 2\nslots = 2\n[evaluation]\nevery = 0\n");
  const auto done = [](const std::vector<std::string>& words, const std::string& input = {}) {
    const ProcessResult result = run(words, input);
    CAPTURE(result.err);
    REQUIRE(result.code == 0);
    return result.out;
  };
  done({TROUPE_PROGRAM, "prepare", "--out", data, "--aligned", folder.write("source", source),
        folder.write("target", target), "--vocabulary", "300", "--max-length", "64",
        "--compatibility-forms"});
  done({TROUPE_PROGRAM, "train", "--job", job, "--data", data, "--out", out, "--threads", "1"});
  done({TROUPE_PROGRAM, "export", "--checkpoint", out, "--out", exported});
  for (const std::string& checkpoint : {out, exported}) {
    const auto scored = [&](const std::string& line) {
      return done({TROUPE_PROGRAM, "translate", "--checkpoint", checkpoint, "--n-best", "2", "--beam", "2"},
                  line);
    };
    CHECK(scored("the ﬁne ﬁle x² 16\n") == scored("the fine file x2 16\n"));
    CHECK(scored("the fine file x2 16\n") != scored("the file fine x2 16\n"));
  }
}

TEST_CASE("an exported model translates as its checkpoint does, and a damaged one is refused") {
  const TrainedTiny tiny(3);
  const std::string exported = tiny.folder / "exported", broken = tiny.folder / "broken";
  REQUIRE(run({TROUPE_PROGRAM, "export", "--checkpoint", tiny.checkpoint, "--out", exported}).code == 0);
  const std::string input = joined(tiny.dataset->texts(data::Split::test));
  const auto expected = run({TROUPE_PROGRAM, "translate", "--checkpoint", tiny.checkpoint}, input);
  CHECK(run({TROUPE_PROGRAM, "translate", "--checkpoint", exported}, input).out == expected.out);

  const std::string bytes = data::read_file(exported);
  const auto refuses = [&](const std::string& content, const std::string& reason) {
    std::ofstream(broken, std::ios::binary) << content;
    const auto result = run({TROUPE_PROGRAM, "translate", "--checkpoint", broken}, input);
    CAPTURE(reason);
    CAPTURE(result.err);
    CHECK(result.code == 1);
    CHECK(result.out.empty());
    CHECK(lines_of(result.err).size() == 1);
    CHECK(result.err.find(broken) != std::string::npos);
    CHECK(result.err.find(reason) != std::string::npos);
  };
  for (const char* section : {"record", "vectors", "tables", "packed"}) {
    const size_t header = bytes.find(section);
    REQUIRE(header != std::string::npos);
    std::string flipped = bytes;
    flipped[header + 24 + 40] ^= 4;  // behind tag, size and checksum
    refuses(flipped, fmt::format("\"{}\" do not match their checksum", section));
  }
  refuses(bytes.substr(0, bytes.size() / 2), "ends");
  refuses(bytes.substr(0, bytes.size() - 1), "too early");
  refuses(bytes + "x", "follow its end");
  std::string newer = bytes;
  newer[8] = char(model::kRecordFormat + 1);
  refuses(newer, "newer troupe");
}

TEST_CASE("mistakes of translate and evaluate") {
  const TrainedTiny tiny(1);
  data::TinyOptions other;
  other.seed = 2;
  other.pairs = 300;
  other.words_max = 3;
  const std::string others = tiny.folder / "other", text = tiny.folder / "text";
  data::write_tiny_dataset(others, other);
  other.language_model = true;
  data::write_tiny_dataset(text, other);
  const std::string broken = tiny.folder / "broken.troupe";
  run({"sh", "-c", "head -c 5000 '" + tiny.checkpoint + "' > '" + broken + "'"});
  const std::string& good = tiny.checkpoint;
  model::ModelConfig decoder;
  decoder.family = model::Family::decoder;
  const TrainedTiny writer(1, decoder), narrow(0, {}, 8);
  const std::string exported = tiny.folder / "exported";
  REQUIRE(run({TROUPE_PROGRAM, "export", "--checkpoint", good, "--out", exported}).code == 0);
  const std::vector<Mistake> mistakes = {
      {"no checkpoint named", {"translate"}, 2, {"--checkpoint"}},
      {"no such checkpoint", {"translate", "--checkpoint", "/nowhere"}, 1, {"/nowhere"}},
      {"a folder without checkpoints",
       {"translate", "--checkpoint", tiny.data},
       1,
       {"no whole checkpoint here; give"}},
      {"a cut checkpoint", {"translate", "--checkpoint", broken}, 1, {"broken.troupe"}},
      {"beam 0", {"translate", "--checkpoint", good, "--beam", "0"}, 2, {"beam is 0"}},
      {"beam too large", {"translate", "--checkpoint", good, "--beam", "65"}, 2, {"beam is 65"}},
      {"more than the beam",
       {"translate", "--checkpoint", good, "--n-best", "3"},
       2,
       {"n-best is 3", "beam"}},
      {"a penalty below 0",
       {"translate", "--checkpoint", good, "--length-penalty", "-1"},
       2,
       {"length penalty is -1"}},
      {"an empty batch", {"translate", "--checkpoint", good, "--batch", "0"}, 2, {"batch is 0"}},
      {"export of nothing", {"export", "--checkpoint", good}, 2, {"--out"}},
      {"export of a language model",
       {"export", "--checkpoint", writer.checkpoint, "--out", tiny.folder / "writer"},
       2,
       {"language model"}},
      {"export onto itself", {"export", "--checkpoint", good, "--out", good}, 2, {"another file"}},
      {"export to nowhere", {"export", "--checkpoint", good, "--out", "/nowhere/x"}, 1, {"/nowhere/x"}},
      {"export of an exported model",
       {"export", "--checkpoint", exported, "--out", tiny.folder / "again"},
       2,
       {"exported already"}},
      {"8 bits of an exported model that has more",
       {"translate", "--checkpoint", exported, "--int8"},
       2,
       {"without --int8"}},
      {"another type than an exported model's",
       {"translate", "--checkpoint", exported, "--compute", "bf16"},
       2,
       {"to compute in f32", "--compute bf16"}},
      {"a type of no use",
       {"evaluate", "--checkpoint", good, "--data", tiny.data, "--compute", "i8"},
       2,
       {"--compute", "f32"}},
      {"evaluate an exported model",
       {"evaluate", "--checkpoint", exported, "--data", tiny.data},
       2,
       {"exported model", "checkpoint"}},
      {"evaluate an exported model in 8 bits",
       {"evaluate", "--checkpoint", exported, "--data", tiny.data, "--int8"},
       2,
       {"exported model", "checkpoint"}},
      {"digest of an exported model", {"digest", exported}, 1, {"no checkpoint"}},
      {"a line without end",
       {"translate", "--checkpoint", good},
       2,
       {"line 1", "longer"},
       std::string(3 << 20, 'a')},
      {"a line of a little more than a mebibyte, with an end",
       {"translate", "--checkpoint", good},
       2,
       {"line 1", "longer"},
       std::string((1 << 20) + 100, 'a') + "\n"},
      {"no such dataset", {"evaluate", "--checkpoint", good, "--data", "/nowhere"}, 1, {"/nowhere"}},
      {"no such split",
       {"evaluate", "--checkpoint", good, "--data", tiny.data, "--split", "train"},
       2,
       {"--split"}},
      {"another tokenizer", {"evaluate", "--checkpoint", good, "--data", others}, 2, {"another tokenizer"}},
      {"longer samples than the model takes",
       {"evaluate", "--checkpoint", narrow.checkpoint, "--data", narrow.data},
       2,
       {"takes 8 tokens", "--max-length 8"}},
      {"running text", {"evaluate", "--checkpoint", good, "--data", text}, 2, {"tokenizer"}},
      {"evaluate with beam 0",
       {"evaluate", "--checkpoint", good, "--data", tiny.data, "--beam", "0"},
       2,
       {"beam is 0"}},
      {"nowhere to write",
       {"evaluate", "--checkpoint", good, "--data", tiny.data, "--samples", "1", "--output", "/nowhere/t"},
       1,
       {"/nowhere/t", "No such file"}},
      {"a folder to write into",
       {"evaluate", "--checkpoint", good, "--data", tiny.data, "--samples", "1", "--output", others},
       1,
       {others, "Is a directory", "--output"}},
  };
  for (const Mistake& mistake : mistakes) check_mistake(mistake);
  CHECK(run({TROUPE_PROGRAM, "evaluate", "--checkpoint", good, "--data", tiny.data, "--output", others})
            .out.empty());  // it is told before the work
  for (const std::vector<std::string>& option : {std::vector<std::string>{"--int8"},
                                                 {"--beam", "4"},
                                                 {"--batch", "8"},
                                                 {"--length-penalty", "1"},
                                                 {"--max-tokens", "9"}}) {
    Mistake mistake{"of a language model",
                    {"evaluate", "--checkpoint", writer.checkpoint, "--data", writer.data},
                    2,
                    {"language model", option[0]}};
    mistake.arguments.insert(mistake.arguments.end(), option.begin(), option.end());
    check_mistake(mistake);
  }
}

TEST_CASE(
    "a model that was trained with products of its device alone computes in the type that is asked for") {
  model::ModelConfig config = model::gpt2_config(2, 64, 4, 500, 64);
  for (const auto& [compute, products] : {std::pair{kernels::DType::bf16, model::Products::fp8},
                                          {kernels::DType::f32, model::Products::tf32}}) {
    config.compute = compute;
    config.products = products;
    CHECK(inference::in_precision(config, {}) == config);
    CHECK(inference::in_precision(config, {compute, false}) == config);
    const auto other = compute == kernels::DType::f32 ? kernels::DType::bf16 : kernels::DType::f32;
    const model::ModelConfig changed = inference::in_precision(config, {other, false});
    CHECK(changed.compute == other);
    model::validate(changed);
  }
}
