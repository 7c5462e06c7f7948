#include <nlohmann/json.hpp>

#include "data/files.hpp"
#include "data/tokenizer.hpp"
#include "tests/cli/mistake.hpp"

using namespace troupe;
using namespace troupe::test;

namespace {

// 200 different pairs, enough for a small tokenizer and all three splits.
std::string lines(const char* word) {
  std::string out;
  for (int i = 0; i < 200; ++i) {
    out += word;
    for (int digit = i; digit > 0; digit /= 7) out += std::string(" ") + char('a' + digit % 7) + word;
    out += '\n';
  }
  return out;
}

// A SentencePiece model of 4 MB: more than a message between nodes holds.
std::string large_model() {
  std::vector<std::string> sentences;
  for (int i = 0; i < 8000; ++i) {
    const std::string digits = std::to_string(i);
    if (i % 10 == 0)
      sentences.emplace_back();
    else
      sentences.back() += ' ';
    sentences.back() += std::string(500 - digits.size(), '0') + digits;
  }
  return data::train_tokenizer({.kind = data::TokenizerKind::word,
                                .vocabulary = 9000,
                                .character_coverage = 1,
                                .byte_fallback = false},
                               sentences);
}

std::string hashes(const std::string& folder) {
  return run({"sh", "-c", "cd '" + folder + "' && find . -type f | sort | xargs sha256sum"}).out;
}

}  // namespace

TEST_CASE("prepare: every mistake gets one clear error and an exit code") {
  const TemporaryFolder folder;
  const std::string source = folder.write("source.txt", lines("north"));
  const std::string target = folder.write("target.txt", lines("sud"));
  const std::string shorter = folder.write("shorter.txt", "one line\n");
  const std::string latin1 = folder.write("latin1.txt", "good line\nna\xefve\n");
  const std::string empty = folder.write("empty.txt", "");
  const std::string blank = folder.write("blank.txt", "\n\n \n");
  const std::string one_column = folder.write("one_column.tsv", "alone\n");
  const std::string long_line = folder.write("long.txt", std::string(3 << 20, 'a') + "\n");
  const std::string not_a_model = folder.write("not_a_model", "hello");
  const std::string out = folder / "out";
  const auto prepare = [&](std::vector<std::string> more) {
    std::vector<std::string> all{"prepare", "--out", out, "--threads", "1", "--vocabulary", "300"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const auto prepare_with_model = [&](const std::string& model, const std::vector<std::string>& more = {}) {
    std::vector<std::string> all{"prepare",          "--out", out, "--aligned", source, target,
                                 "--tokenizer-file", model};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const Mistake mistakes[] = {
      {"no source", prepare({}), 2, {"0 sources named", "--aligned"}},
      {"two sources", prepare({"--text", source, "--tsv", source}), 2, {"2 sources named"}},
      {"no output folder", {"prepare", "--text", source}, 2, {"--out is required"}},
      {"unknown flag", prepare({"--fast"}), 2, {"--fast", "troupe prepare --help"}},
      {"unknown source", prepare({"--source", "wikipedia"}), 2, {"debian"}},
      {"pair without two languages",
       prepare({"--source", "debian", "--pair", "en"}),
       2,
       {"--pair is \"en\"", "'-'"}},
      {"number that is none",
       prepare({"--text", source, "--max-length", "long"}),
       2,
       {"--max-length", "long"}},
      {"missing file",
       prepare({"--aligned", folder / "nowhere.txt", target}),
       1,
       {"nowhere.txt", "No such file"}},
      {"a folder instead of a file", prepare({"--text", folder.path()}), 1, {folder.path()}},
      {"unequal line counts", prepare({"--aligned", source, shorter}), 1, {source, shorter}},
      {"not UTF-8", prepare({"--text", latin1}), 1, {"latin1.txt:2", "UTF-8"}},
      {"empty corpus", prepare({"--text", empty}), 1, {"empty.txt"}},
      {"only blank lines", prepare({"--text", blank}), 1, {"blank.txt"}},
      {"TSV without the second column", prepare({"--tsv", one_column}), 1, {"one_column.tsv:1", "column"}},
      {"line too long", prepare({"--text", long_line}), 1, {"long.txt:1"}},
      {"no tokenizer file", prepare_with_model(folder / "gone.model"), 1, {"gone.model"}},
      {"a folder for a tokenizer file",
       prepare_with_model(folder.path()),
       1,
       {"cannot open " + folder.path(), "Is a directory"}},
      {"tokenizer file that is none", prepare_with_model(not_a_model), 1, {"not_a_model", "SentencePiece"}},
      {"a vocabulary for a tokenizer that is there",
       prepare_with_model(not_a_model, {"--vocabulary", "300"}),
       2,
       {"--vocabulary excludes --tokenizer-file"}},
      {"a kind for a tokenizer that is there",
       prepare_with_model(not_a_model, {"--tokenizer", "bpe"}),
       2,
       {"--tokenizer excludes --tokenizer-file"}},
      {"sentences for a tokenizer that is there",
       prepare_with_model(not_a_model, {"--tokenizer-sentences", "10"}),
       2,
       {"--tokenizer-sentences excludes --tokenizer-file"}},
      {"two languages of one text",
       prepare({"--text", source, "--pair", "en-fr"}),
       2,
       {"--text excludes --pair"}},
      {"a pair of files that is no pair of languages",
       prepare({"--aligned", source, target, "--pair", "en-f/r"}),
       2,
       {"\"f/r\" as a language"}},
      {"a ratio of one side",
       prepare({"--text", source, "--length-ratio-max", "2"}),
       2,
       {"--text excludes --length-ratio-max"}},
      {"a longest window",
       prepare({"--text", source, "--split", "token", "--characters-max", "100"}),
       2,
       {"--characters-max", "--split token"}},
      {"lines of no file",
       prepare({"--source", "debian", "--skip-invalid-utf8"}),
       2,
       {"--source excludes --skip-invalid-utf8"}},
      {"a cache for a file",
       prepare({"--text", source, "--cache", folder / "cache"}),
       2,
       {"--cache requires --source"}},
      {"lists of packages for a file",
       prepare({"--tsv", source, "--apt-lists", folder / "lists"}),
       2,
       {"--apt-lists requires --source"}},
      {"a cache for lists that are there",
       prepare({"--source", "debian", "--cache", folder / "cache", "--apt-lists", folder / "lists"}),
       2,
       {"--cache excludes --apt-lists"}},
      {"a source column without TSV",
       prepare({"--aligned", source, target, "--tsv-source-column", "2"}),
       2,
       {"--tsv-source-column requires --tsv"}},
      {"a target column without TSV",
       prepare({"--aligned", source, target, "--tsv-target-column", "1"}),
       2,
       {"--tsv-target-column requires --tsv"}},
      {"a label column without TSV",
       prepare({"--aligned", source, target, "--tsv-label-column", "3"}),
       2,
       {"--tsv-label-column requires --tsv"}},
      {"samples longer than packs",
       prepare({"--aligned", source, target, "--pack-tokens", "16", "--max-length", "64"}),
       2,
       {"pack", "64"}},
      {"vocabulary without room",
       {"prepare", "--out", out, "--aligned", source, target, "--vocabulary", "3"},
       2,
       {"vocabulary", "3"}},
      {"vocabulary without room for the characters",
       {"prepare", "--out", out, "--threads", "1", "--aligned", source, target, "--vocabulary", "272"},
       2,
       {"vocabulary of 272", "choose at least so many"}},
      {"output under a file", {"prepare", "--out", source + "/out", "--text", source}, 1, {source}},
      {"no lists of packages",
       prepare({"--source", "debian", "--apt-lists", folder / "no-lists"}),
       1,
       {"no-lists"}},
  };
  for (const Mistake& mistake : mistakes) check_mistake(mistake);
  CHECK(run({"test", "-e", out}).code == 1);
  const ProcessResult at_once =
      run({TROUPE_PROGRAM, "prepare", "--out", out, "--text", source, "--vocabulary", "0"});
  CHECK(at_once.err ==
        "troupe: --vocabulary: Value 0 not in range 272 to 1000000; see troupe prepare --help\n");
}

TEST_CASE("prepare: a dataset that is there is not replaced unless asked") {
  const TemporaryFolder folder;
  const std::string source = folder.write("source.txt", lines("north"));
  const std::string target = folder.write("target.txt", lines("sud"));
  const std::string out = folder / "out";
  const std::vector<std::string> command{TROUPE_PROGRAM, "prepare", "--out",     out, "--aligned",
                                         source,         target,    "--threads", "1", "--vocabulary",
                                         "300"};
  const ProcessResult first = run(command);
  CAPTURE(first.err);
  REQUIRE(first.code == 0);
  check_mistake({"again", {command.begin() + 1, command.end()}, 2, {out, "--overwrite"}});
  auto again = command;
  again.push_back("--overwrite");
  CHECK(run(again).code == 0);
  // As a kill in the midst of it leaves it, or as somebody's own files: nobody can tell.
  REQUIRE(run({"rm", out + "/manifest.json"}).code == 0);
  check_mistake({"left", {command.begin() + 1, command.end()}, 2, {out, "test-00000.tokens", "--overwrite"}});
  CHECK(run(again).code == 0);

  INFO("a tokenizer that somebody else put there");
  const std::string other = folder / "other", model = other + "/tokenizer.model";
  REQUIRE(run({"sh", "-c", "mkdir " + other + " && cp " + out + "/tokenizer.model " + other}).code == 0);
  auto into_other = command;
  into_other[3] = other;
  check_mistake(
      {"a model", {into_other.begin() + 1, into_other.end()}, 2, {other, "tokenizer.model", "--overwrite"}});
  into_other.erase(into_other.end() - 2, into_other.end());  // the vocabulary
  into_other.insert(into_other.end(), {"--tokenizer-file", model});
  const ProcessResult with_it = run(into_other);
  CAPTURE(with_it.err);
  CHECK(with_it.code == 0);
  CHECK(hashes(other) == hashes(out));
}

TEST_CASE("prepare: a full disk is one error and leaves no half dataset") {
  const TemporaryFolder folder;
  const std::string source = folder.write("source.txt", lines("north"));
  const std::string target = folder.write("target.txt", lines("sud"));
  const std::string disk = folder / "disk";
  const SmallDisk small(disk, "16k");
  if (!small.mounted()) {
    MESSAGE("skipped: mounting a small tmpfs needs root");
    return;
  }
  check_mistake({"full disk",
                 {"prepare", "--out", disk + "/out", "--aligned", source, target, "--threads", "1",
                  "--vocabulary", "300"},
                 1,
                 {disk, "No space left"}});
  CHECK(run({"test", "-e", disk + "/out/manifest.json"}).code == 1);
}

TEST_CASE("prepare: a full disk leaves the dataset that was to be replaced") {
  const TemporaryFolder folder;
  const std::string source = folder.write("source.txt", lines("north"));
  const std::string target = folder.write("target.txt", lines("sud"));
  const std::string model = folder.write("large.model", large_model());
  const std::string disk = folder / "disk", out = disk + "/out";
  const SmallDisk small(disk, "1m");
  if (!small.mounted()) {
    MESSAGE("skipped: mounting a small tmpfs needs root");
    return;
  }
  const auto prepare = [&](const std::string& option, const std::string& value) {
    return std::vector<std::string>{"prepare",   "--out", out,           "--aligned", source, target,
                                    "--threads", "1",     "--overwrite", option,      value};
  };
  std::vector<std::string> first = prepare("--vocabulary", "300");
  first.insert(first.begin(), TROUPE_PROGRAM);
  REQUIRE(run(first).code == 0);
  const std::string before = hashes(out);
  // The tokenizer is written last.
  check_mistake({"full disk", prepare("--tokenizer-file", model), 1, {disk, "No space left"}});
  CHECK(before.find("manifest.json") != std::string::npos);
  CHECK(hashes(out) == before);
}

TEST_CASE("prepare: a tokenizer that no message holds is refused for nodes before the text is read") {
  const TemporaryFolder folder;
  const std::string model = large_model();
  REQUIRE(model.size() > 3'145'728);
  const std::vector<std::string> alone{TROUPE_PROGRAM,
                                       "prepare",
                                       "--out",
                                       folder / "out",
                                       "--aligned",
                                       folder.write("source.txt", lines("north")),
                                       folder.write("target.txt", lines("sud")),
                                       "--threads",
                                       "1",
                                       "--tokenizer-file",
                                       folder.write("large.model", model)};
  auto on_nodes = alone;
  on_nodes.emplace_back("--nodes");
  on_nodes.emplace_back("1");
  const Mistake mistake{"a large tokenizer",
                        {on_nodes.begin() + 1, on_nodes.end()},
                        2,
                        {std::to_string(model.size()), "3145728", "--vocabulary", "--nodes"}};
  check_mistake(mistake);
  CHECK(run(on_nodes).err.find("scan") == std::string::npos);
  const ProcessResult done = run(alone);
  CAPTURE(done.err);
  CHECK(done.code == 0);
}

TEST_CASE("prepare: --pair says what the languages of files are") {
  const TemporaryFolder folder;
  std::string pairs;
  for (int i = 0; i < 50; ++i) {
    const std::string number = std::to_string(i);
    pairs += "Πού είναι το " + number + "; Εδώ είναι το " + number + ".\tWhere is " + number + "? Here is " +
             number + ".\n";
  }
  const std::string tsv = folder.write("pairs.tsv", pairs);
  const auto manifest = [&](const std::string& name, const std::vector<std::string>& more) {
    std::vector<std::string> command{TROUPE_PROGRAM, "prepare",  "--out",        folder / name, "--tsv",  tsv,
                                     "--split",      "sentence", "--valid",      "0",           "--test", "0",
                                     "--threads",    "1",        "--vocabulary", "400"};
    command.insert(command.end(), more.begin(), more.end());
    const ProcessResult result = run(command);
    CAPTURE(result.err);
    REQUIRE(result.code == 0);
    return nlohmann::json::parse(data::read_file(folder / name + "/manifest.json"));
  };
  const auto greek = manifest("greek", {"--pair", "el-en"}), unsaid = manifest("unsaid", {});
  CHECK(greek["source_language"].get<std::string>() == "el");
  CHECK(greek["target_language"].get<std::string>() == "en");
  CHECK(greek["kept"]["train"].get<int>() == 100);  // only in Greek does a semicolon end a sentence
  CHECK(unsaid["source_language"].get<std::string>().empty());
  CHECK(unsaid["kept"]["train"].get<int>() == 50);
}
