#include <fstream>

#include "tests/cli/mistake.hpp"

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
      {"no tokenizer file",
       prepare({"--aligned", source, target, "--tokenizer-file", folder / "gone.model"}),
       1,
       {"gone.model"}},
      {"tokenizer file that is none",
       prepare({"--aligned", source, target, "--tokenizer-file", not_a_model}),
       1,
       {"not_a_model", "SentencePiece"}},
      {"samples longer than packs",
       prepare({"--aligned", source, target, "--pack-tokens", "16", "--max-length", "64"}),
       2,
       {"pack", "64"}},
      {"vocabulary without room",
       {"prepare", "--out", out, "--aligned", source, target, "--vocabulary", "3"},
       2,
       {"vocabulary", "3"}},
      {"output under a file", {"prepare", "--out", source + "/out", "--text", source}, 1, {source}},
      {"no lists of packages",
       prepare({"--source", "debian", "--apt-lists", folder / "no-lists"}),
       1,
       {"no-lists"}},
  };
  for (const Mistake& mistake : mistakes) check_mistake(mistake);
  CHECK(run({"test", "-e", out}).code == 1);
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
