// What a command puts in the place of a file that is there, and what it leaves as it is.
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "data/files.hpp"
#include "data/tiny.hpp"
#include "tests/cli/mistake.hpp"

using namespace troupe;
using namespace troupe::test;

namespace {

constexpr char kJob[] =
    "[model]\nwidth = 16\ninner = 16\nheads = 2\nencoder_layers = 1\ndecoder_layers = 1\nmax_length = 64\n"
    "compute = \"f32\"\n[training]\nsteps = 2\nslots = 2\n[evaluation]\nevery = 0\n";

// A dataset and a checkpoint of it.
struct Trained {
  TemporaryFolder folder;
  std::string data = folder / "data", checkpoint;

  Trained() {
    data::TinyOptions language;
    language.pairs = 300;
    data::write_tiny_dataset(data, language);
    const ProcessResult result = run({TROUPE_PROGRAM, "train", "--job", folder.write("job.toml", kJob),
                                      "--data", data, "--out", folder / "run", "--threads", "1"});
    CAPTURE(result.err);
    REQUIRE(result.code == 0);
    checkpoint = folder / "run/checkpoints/checkpoint-0000000002-node0.troupe";
  }
};

}  // namespace

TEST_CASE("export replaces exported models alone, and says so before the work") {
  const Trained tiny;
  const TemporaryFolder& folder = tiny.folder;
  const auto export_to = [&](const std::string& out) {
    return std::vector<std::string>{"export", "--checkpoint", tiny.checkpoint, "--out", out};
  };
  const auto exports = [&](const std::string& out) {
    std::vector<std::string> command = export_to(out);
    command.insert(command.begin(), TROUPE_PROGRAM);
    const ProcessResult result = run(command);
    CAPTURE(result.err);
    CHECK(result.code == 0);
  };
  const std::string notes = folder.write("notes.txt", "mine\n"), other = folder / "other.troupe";
  REQUIRE(run({"cp", tiny.checkpoint, other}).code == 0);
  for (const std::string& target : {notes, other, tiny.checkpoint}) {
    const std::string before = data::read_file(target);
    check_mistake({"a file of another kind", export_to(target), 2, {target, "name another file"}});
    CHECK(data::read_file(target) == before);
  }
  const std::string pipe = folder / "pipe";
  REQUIRE(run({"mkfifo", pipe}).code == 0);
  check_mistake({"a pipe", export_to(pipe), 2, {pipe, "name another file"}});
  check_mistake({"a folder", export_to(folder.path()), 2, {folder.path() + " is a folder"}});
  check_mistake({"no checkpoint either", {"export", "--checkpoint", "/nowhere", "--out", notes}, 2, {notes}});

  const std::string exported = folder / "exported";
  exports(exported);
  const std::string bytes = data::read_file(exported);
  exports(exported);
  CHECK(data::read_file(exported) == bytes);

  INFO("what lies under the name that it is written to first stays, but for what a killed export left");
  const std::string partial = folder.write("new.partial", "mine\n"), fresh = folder / "new";
  check_mistake({"a file of another kind", export_to(fresh), 2, {partial, "move it away"}});
  CHECK(data::read_file(partial) == "mine\n");
  REQUIRE(run({"ln", "-sf", notes, partial}).code == 0);
  check_mistake({"a link", export_to(fresh), 2, {partial, "move it away"}});
  CHECK(data::read_file(notes) == "mine\n");
  REQUIRE(run({"rm", partial}).code == 0);
  REQUIRE(run({"sh", "-c", "head -c 100 '" + exported + "' > '" + partial + "'"}).code == 0);
  exports(fresh);
  CHECK(data::read_file(fresh) == bytes);

  INFO("a file that may not grow is an error too, and nothing stays of it");
  const std::string cut = folder / "cut";
  const ProcessResult limited = run(
      {"sh", "-c",
       "ulimit -f 1; exec '" TROUPE_PROGRAM "' export --checkpoint " + tiny.checkpoint + " --out " + cut});
  CAPTURE(limited.err);
  CHECK(limited.code == 1);
  CHECK(limited.err.find("File too large") != std::string::npos);
  CHECK(run({"sh", "-c", "ls " + cut + "*"}).out.empty());
}

TEST_CASE("evaluate writes its translations over no model and into no dataset") {
  const Trained tiny;
  const TemporaryFolder& folder = tiny.folder;
  const auto evaluate_to = [&](const std::string& out) {
    return std::vector<std::string>{
        "evaluate", "--checkpoint", tiny.checkpoint, "--data", tiny.data, "--output", out};
  };
  const std::string exported = folder / "exported", link = folder / "link";
  REQUIRE(run({TROUPE_PROGRAM, "export", "--checkpoint", tiny.checkpoint, "--out", exported}).code == 0);
  REQUIRE(run({"ln", "-s", tiny.data, link}).code == 0);
  for (const std::string& model : {tiny.checkpoint, exported}) {
    const std::string before = data::read_file(model);
    check_mistake({"a model", evaluate_to(model), 2, {model, "that troupe has made"}});
    CHECK(data::read_file(model) == before);
  }
  const std::string manifest = data::read_file(tiny.data + "/manifest.json");
  for (const std::string& inside : {tiny.data + "/manifest.json", link + "/manifest.json", link + "/new"})
    check_mistake({"in the dataset", evaluate_to(inside), 2, {inside, "lies in the dataset"}});
  CHECK(data::read_file(tiny.data + "/manifest.json") == manifest);
  CHECK(run({"test", "-e", tiny.data + "/new"}).code == 1);
}

TEST_CASE("evaluate replaces a file of translations wholly or not at all") {
  const Trained tiny;
  const TemporaryFolder& folder = tiny.folder;
  const std::string out = folder / "out.txt";
  const std::string command =
      "evaluate --checkpoint " + tiny.checkpoint + " --data " + tiny.data + " --output " + out;
  const auto left = [&] { return run({"sh", "-c", "ls -A " + folder.path() + " | grep out.txt"}).out; };
  const auto fail = [&] {
    const ProcessResult limited = run({"sh", "-c", "ulimit -f 1; exec '" TROUPE_PROGRAM "' " + command});
    CAPTURE(limited.err);
    CHECK(limited.code == 1);
    CHECK(limited.err.find("cannot write the translations to " + out) != std::string::npos);
  };
  fail();
  CHECK(left().empty());
  CHECK(run({"sh", "-c", "exec '" TROUPE_PROGRAM "' " + command}).code == 0);
  const std::string whole = data::read_file(out);
  CHECK(whole.size() > 1024);
  fail();
  CHECK(data::read_file(out) == whole);
  CHECK(left() == "out.txt\n");
}

TEST_CASE("evaluate writes its translations to where its report goes too, after what is there") {
  const Trained tiny;
  const std::string out = tiny.folder.write("both.txt", "of before\n"), file = tiny.folder / "file.txt";
  const std::string command = "'" TROUPE_PROGRAM "' evaluate --checkpoint " + tiny.checkpoint + " --data " +
                              tiny.data + " --json --output ";
  REQUIRE(run({"sh", "-c", "exec " + command + file}).code == 0);
  for (const std::string& output : {std::string("/dev/stdout"), out}) {
    CAPTURE(output);
    std::ofstream(out) << "of before\n";
    REQUIRE(run({"sh", "-c", "exec " + command + output + " >> " + out}).code == 0);
    const std::string text = data::read_file(out), translations = data::read_file(file);
    CHECK(text.starts_with("of before\n{"));
    CHECK(text.ends_with("}\n" + translations));
  }
}

TEST_CASE("evaluate takes no file beside the one that it writes for its own, and keeps its permissions") {
  const Trained tiny;
  const std::string out = tiny.folder.write("out.txt", "old"), own = tiny.folder.write(".out.txt.tmp", "own");
  std::filesystem::permissions(out, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  REQUIRE(
      run({TROUPE_PROGRAM, "evaluate", "--checkpoint", tiny.checkpoint, "--data", tiny.data, "--output", out})
          .code == 0);
  CHECK(data::read_file(out) != "old");
  CHECK(data::read_file(own) == "own");
  CHECK((std::filesystem::status(out).permissions() & std::filesystem::perms::others_read) ==
        std::filesystem::perms::none);
}

TEST_CASE("a name that is no UTF-8 keeps evaluate from printing no object") {
  const Trained tiny;
  const std::string named = tiny.folder / "caf\xe9.troupe";
  REQUIRE(run({"cp", tiny.checkpoint, named}).code == 0);
  const ProcessResult result = run(
      {TROUPE_PROGRAM, "evaluate", "--checkpoint", named, "--data", tiny.data, "--samples", "2", "--json"});
  CAPTURE(result.err);
  REQUIRE(result.code == 0);
  const auto said = nlohmann::json::parse(result.out);
  CHECK(said["checkpoint"].get<std::string>().ends_with("/caf\uFFFD.troupe"));
}
