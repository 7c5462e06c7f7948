// Standard input, output and error as a program may be started with them: full, closed, or read by nobody.
#include <string>

#include <doctest/doctest.h>
#include <unistd.h>

#include "tests/support/process.hpp"

using namespace troupe::test;

namespace {

constexpr char kTinyJob[] =
    "[data]\nsource = \"tiny\"\n[model]\nwidth = 16\ninner = 16\nheads = 2\nencoder_layers = "
    "1\ndecoder_layers = 1\nmax_length = 64\ncompute = \"f32\"\n[training]\nsteps = 2\nslots = 2\n"
    "[evaluation]\nevery = 0\n";

ProcessResult troupe_with(const std::string& words) {
  return run({"sh", "-c", "exec '" TROUPE_PROGRAM "' " + words});
}

std::string pairs_file(const TemporaryFolder& folder) {
  std::string text;
  for (int i = 0; i < 50; ++i)
    text += "the house of number " + std::to_string(i) + "\tla maison au " + std::to_string(i) + "\n";
  return folder.write("pairs.tsv", text);
}

bool is_there(const std::string& path) {
  return run({"test", "-e", path}).code == 0;
}

}  // namespace

TEST_CASE("words on standard error that nothing takes change nothing") {
  const TemporaryFolder folder;
  const std::string job = folder.write("job.toml", kTinyJob), tsv = pairs_file(folder);
  for (const char* stream : {"2>/dev/full", "2>&-"}) {
    CAPTURE(stream);
    const std::string to = std::string(" ") + stream, data = folder / "data";
    CHECK(troupe_with("bogus" + to).code == 2);
    CHECK(troupe_with("digest /nowhere" + to).code == 1);
    CHECK(troupe_with("prepare --overwrite --vocabulary 300 --tsv " + tsv + " --out " + data + to).code == 0);
  }
  // Where there is nothing to resume, that is said.
  CHECK(troupe_with("train --resume --job " + job + " --out " + (folder / "run") + " 2>/dev/full").code == 0);
}

TEST_CASE("a descriptor that is closed from the start is taken by nothing else") {
  const TemporaryFolder folder;
  const std::string job = folder.write("job.toml", kTinyJob), tsv = pairs_file(folder);
  const std::string out = folder / "run", data = folder / "data";
  INFO("the job is done, though nobody can be told");
  CHECK(troupe_with("train --job " + job + " --out " + out + " <&- >&- 2>&-").code == 1);
  const ProcessResult digest = troupe_with("digest " + out);
  CAPTURE(digest.err);
  CHECK(digest.code == 0);

  const ProcessResult unsaid = troupe_with("digest " + out + " >&-");
  CHECK(unsaid.code == 1);
  CHECK(unsaid.err.starts_with("troupe: cannot write to standard output"));
  const ProcessResult unheard = troupe_with("translate --checkpoint " + out + " <&-");
  CHECK(unheard.code == 1);
  CHECK(unheard.err == "troupe: cannot read the input: Bad file descriptor\n");

  CHECK(troupe_with("prepare --nodes 2 --vocabulary 300 --tsv " + tsv + " --out " + data + " 2>&-").code ==
        0);
  CHECK(is_there(data + "/manifest.json"));
  CHECK_FALSE(is_there(data + "/.work"));
}

TEST_CASE("a pipe that nobody reads is an error like any other") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  close(ends[0]);
  const std::string pipe_end = ">&" + std::to_string(ends[1]);
  const auto troupe_into = [](const std::string& words) {  // sh may know descriptors of one digit alone
    return run({"bash", "-c", "exec '" TROUPE_PROGRAM "' " + words});
  };
  const ProcessResult unread = troupe_into("--version " + pipe_end);
  CHECK(unread.code == 1);
  CHECK(unread.err.starts_with("troupe: cannot write to standard output"));
  CHECK(troupe_into("bogus 2" + pipe_end).code == 2);
  close(ends[1]);
}
