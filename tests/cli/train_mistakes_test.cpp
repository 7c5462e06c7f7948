#include <fstream>
#include <sstream>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "data/tiny.hpp"
#include "tests/cli/mistake.hpp"
#include "tests/support/silent_port.hpp"

using namespace troupe::test;

namespace {

constexpr char kTinyJob[] =
    "[data]\nsource = \"tiny\"\n[model]\nwidth = 16\ninner = 16\nheads = 2\nencoder_layers = "
    "1\ndecoder_layers = 1\n"
    "max_length = 64\ncompute = \"f32\"\n[training]\nsteps = 6\nslots = 2\n[evaluation]\nevery = 0\n";

std::string one_node(const std::string& address, const std::string& more = "") {
  return more + "[[nodes]]\nname = \"alpha\"\naddress = \"" + address + "\"\n";
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

TEST_CASE("train and node: every mistake on the way to a job gets one clear error and an exit code") {
  const TemporaryFolder folder;
  const std::string job = folder.write("job.toml", kTinyJob);
  const std::string translator = folder.write("translator.toml", "[training]\nsteps = 3\n");
  const std::string broken = folder.write("broken.toml", "[model\nwidth = 3\n");
  const std::string unknown = folder.write("unknown.toml", "[model]\nwidht = 3\n");
  const std::string shape = folder.write("shape.toml", "[model]\nwidth = 100\nheads = 3\n");
  const std::string no_manifest = folder / "empty";
  run({"mkdir", no_manifest});
  const SilentPort busy;
  const std::string cluster = folder.write("cluster.toml", one_node(busy.address()));
  const std::string open = folder.write("open.toml", one_node("0.0.0.0:0"));
  const std::string two =
      folder.write("two.toml", one_node("127.0.0.1:0", "[security]\ninsecure = true\n") +
                                   "[[nodes]]\nname = \"beta\"\naddress = \"127.0.0.1:0\"\n");
  const std::string no_certs =
      folder.write("certs.toml", one_node("127.0.0.1:0", "[security]\ncertificates = \"nowhere\"\n"));
  const std::string out = folder / "out", long_name = folder / std::string(300, 'x');
  const std::string looped = folder / "looped";  // whose checkpoints not even root can look at
  REQUIRE(run({"sh", "-c", "mkdir " + looped + " && ln -s checkpoints " + looped + "/checkpoints"}).code ==
          0);
  const Mistake mistakes[] = {
      {"no subcommand", {}, 2, {"--help"}},
      {"more nodes than there are",
       {"train", "--job", job, "--out", out, "--cluster", two, "--min-nodes", "3"},
       2,
       {"--min-nodes is 3", "lists only 2"}},
      {"unknown subcommand", {"trian"}, 2, {"trian"}},
      {"a step as checkpoints have it in their names",
       {"train", "--job", job, "--out", out, "--stop-at", "0000000200"},
       2,
       {"--stop-at", "0000000200 begins with a 0"}},
      {"a number of steps that begins with a 0",
       {"train", "--job", job, "--out", out, "--steps", "0500"},
       2,
       {"--steps", "0500 begins with a 0"}},
      {"no output folder", {"train", "--job", job}, 2, {"--out is required", "troupe train --help"}},
      {"an empty output folder", {"train", "--job", job, "--out", ""}, 2, {"--out: its value is empty"}},
      {"an empty job file", {"train", "--job", "", "--out", out}, 2, {"--job: its value is empty"}},
      {"an empty cluster file",
       {"train", "--job", job, "--out", out, "--cluster", ""},
       2,
       {"--cluster: its value is empty"}},
      {"an empty file for translations",
       {"evaluate", "--checkpoint", out, "--data", out, "--output", ""},
       2,
       {"--output: its value is empty"}},
      {"checkpoints that cannot be looked at",
       {"train", "--job", job, "--out", looped},
       1,
       {"cannot look for checkpoints in " + looped, "another --out"}},
      {"a checkpoint that cannot be looked at",
       {"digest", long_name},
       1,
       {"cannot look for a checkpoint at " + long_name, "check the path"}},
      {"certificates that cannot be looked at",
       {"certs", "--out", long_name, "--node", "a"},
       1,
       {"cannot look for " + long_name, "check the path"}},
      {"job file missing",
       {"train", "--job", folder / "gone.toml", "--out", out},
       1,
       {"gone.toml", "No such file"}},
      {"job file is not TOML", {"train", "--job", broken, "--out", out}, 2, {"broken.toml:1", "not TOML"}},
      {"unknown key",
       {"train", "--job", unknown, "--out", out},
       2,
       {"unknown.toml:2", "did you mean model.width"}},
      {"impossible shape", {"train", "--job", shape, "--out", out}, 2, {"shape.toml", "width", "heads"}},
      {"unknown override",
       {"train", "--job", job, "--out", out, "--set", "training.stpes=3"},
       2,
       {"training.steps"}},
      {"a wrong override",
       {"train", "--job", job, "--out", out, "--set", "model.width=64", "--set", "model.heads=5"},
       2,
       {"troupe: --set model.heads=5: model.heads is 5", "choose heads that do"}},
      {"override without a value",
       {"train", "--job", job, "--out", out, "--set", "training.steps"},
       2,
       {"key=value"}},
      {"no nodes", {"train", "--job", job, "--out", out, "--nodes", "0"}, 2, {"--nodes"}},
      {"local and cluster at once",
       {"train", "--job", job, "--out", out, "--nodes", "2", "--cluster", cluster},
       2,
       {"--cluster"}},
      {"unknown transport", {"train", "--job", job, "--out", out, "--transport", "pigeon"}, 2, {"pigeon"}},
      {"unknown device",
       {"train", "--job", job, "--out", out, "--device", "gpu"},
       2,
       {"--device is \"gpu\"", "as in \"cuda:0\""}},
      {"a GPU that is not there",
       {"train", "--job", job, "--out", out, "--device", "cuda:99"},
       1,
       {"cuda:99"}},
      {"a node on a GPU that is not there",
       {"node", "--cluster", open, "--name", "alpha", "--device", "cuda:99"},
       1,
       {"cuda:99"}},
      {"float sums on a device",
       {"train", "--job", job, "--out", out, "--device", "emulated", "--set", "training.sum=float"},
       2,
       {"training.sum is \"float\"", "emulated"}},
      {"devices of a cluster file's nodes",
       {"train", "--job", job, "--out", out, "--device", "cpu", "--cluster", cluster},
       2,
       {"--device"}},
      {"no data named", {"train", "--job", translator, "--out", out}, 2, {"--data"}},
      {"data of no use",
       {"train", "--job", job, "--out", out, "--data", no_manifest},
       2,
       {"--data", "would not be used", "data.source"}},
      {"a drill that flips bits of a GPU",
       {"drill", "--job", job, "--out", out, "--device", "cuda:0", "--kinds", "kill,flip"},
       2,
       {"GPU", "leave out the kind flip"}},
      {"a drill that kills its only node",
       {"drill", "--job", job, "--out", out, "--nodes", "1", "--kinds", "terminate"},
       2,
       {"after a terminate", "leave out the kinds kill, terminate and flip"}},
      {"a seed below 0",
       {"drill", "--job", job, "--out", out, "--seed", "-1"},
       2,
       {"--seed: -1 is no whole number from 0 to 18446744073709551615"}},
      {"a seed beyond 64 bits",
       {"drill", "--job", job, "--out", out, "--seed", "99999999999999999999999"},
       2,
       {"--seed: 99999999999999999999999 is no whole number"}},
      {"a drill without data", {"drill", "--job", translator, "--out", out}, 2, {"say with --data"}},
      {"data folder missing",
       {"train", "--job", translator, "--out", out, "--data", folder / "nodata"},
       1,
       {"nodata"}},
      {"folder without a dataset",
       {"train", "--job", translator, "--out", out, "--data", no_manifest},
       1,
       {"manifest.json", "troupe prepare"}},
      {"output under a file", {"train", "--job", job, "--out", job + "/out"}, 1, {job}},
      {"cluster file missing",
       {"train", "--job", job, "--out", out, "--cluster", folder / "gone"},
       1,
       {"gone"}},
      {"no such node in the cluster",
       {"node", "--cluster", cluster, "--name", "omega"},
       2,
       {"omega", "alpha"}},
      {"node without a name", {"node", "--cluster", cluster}, 2, {"say with --name which node of"}},
      {"port in use", {"node", "--cluster", cluster, "--name", "alpha"}, 1, {busy.address()}},
      {"beyond loopback without security",
       {"node", "--cluster", open, "--name", "alpha"},
       2,
       {"insecure", "certs"}},
      {"no certificates", {"node", "--cluster", no_certs, "--name", "alpha"}, 1, {"nowhere"}},
  };
  for (const Mistake& mistake : mistakes) check_mistake(mistake);
  CHECK(run({"test", "-e", out}).code == 1);
}

TEST_CASE("a refused job, or drill, leaves no folder behind") {
  const TemporaryFolder folder;
  const std::string job = folder.write("job.toml", kTinyJob), data = folder / "nodata";
  for (const char* command : {"train", "drill"})
    check_mistake({command,
                   {command, "--job", job, "--set", "data.source=folder", "--out", folder / "runs/one",
                    "--nodes", "2", "--data", data},
                   1,
                   {"nodata", "manifest.json", "troupe prepare"}});
  CHECK(run({"ls", folder.path()}).out == "job.toml\n");
}

TEST_CASE("checkpoints: what is torn, truncated, foreign or newer is refused with one clear error") {
  const TemporaryFolder folder;
  const std::string job = folder.write("job.toml", kTinyJob);
  const std::string out = folder / "run";
  const ProcessResult trained = run({TROUPE_PROGRAM, "train", "--job", job, "--out", out, "--threads", "1"});
  CAPTURE(trained.err);
  REQUIRE(trained.code == 0);
  const std::string listed = run({"ls", out + "/checkpoints"}).out;
  const std::string good = out + "/checkpoints/" + listed.substr(0, listed.find('\n'));
  const std::string bytes = read_file(good);
  REQUIRE(bytes.size() > 1000);
  std::string flipped = bytes;
  flipped[bytes.size() / 4] = char(flipped[bytes.size() / 4] ^ 1);  // among the weights
  const std::string truncated = folder.write("truncated.troupe", bytes.substr(0, bytes.size() / 2));
  const std::string corrupt = folder.write("corrupt.troupe", flipped);
  const std::string text = folder.write("text.troupe", std::string(5000, 'x'));
  const std::string empty = folder.write("empty.troupe", "");
  const Mistake mistakes[] = {
      {"no checkpoint", {"translate", "--checkpoint", folder / "gone"}, 1, {"gone"}},
      {"a folder without checkpoints", {"digest", folder.path()}, 1, {folder.path(), "checkpoint"}},
      {"truncated", {"digest", truncated}, 1, {"truncated.troupe"}},
      {"corrupt", {"translate", "--checkpoint", corrupt}, 1, {"corrupt.troupe"}, "hello\n"},
      {"not a checkpoint", {"digest", text}, 1, {"text.troupe", "checkpoint"}},
      {"empty file", {"digest", empty}, 1, {"empty.troupe"}},
      {"beam of none", {"translate", "--checkpoint", good, "--beam", "0"}, 2, {"beam is 0"}},
      {"input that is not UTF-8",
       {"translate", "--checkpoint", good},
       1,
       {"UTF-8", "line 2"},
       "good\nna\xefve\n"},
      {"another job on resume",
       {"train", "--job", job, "--out", out, "--resume", "--set", "optimizer.beta1=0.5"},
       2,
       {"optimizer.beta1"}},
      {"fewer steps on resume",
       {"train", "--job", job, "--out", out, "--resume", "--steps", "3"},
       2,
       {"step 6", "--steps"}},
      {"certificates for nobody", {"certs", "--out", folder / "certs"}, 2, {"--cluster", "--node"}},
      {"a bad name in a certificate", {"certs", "--out", folder / "certs", "--node", "a/b"}, 2, {"a/b"}},
  };
  for (const Mistake& mistake : mistakes) check_mistake(mistake);
}

TEST_CASE(
    "with --json each line that train and ledger verify print is an object, the last of a job its end") {
  const TemporaryFolder folder;
  const std::string out = folder / "run";
  const ProcessResult trained = run({TROUPE_PROGRAM, "train", "--job", folder.write("job.toml", kTinyJob),
                                     "--out", out, "--threads", "1", "--set", "report.every=2", "--json"});
  CAPTURE(trained.out);
  CAPTURE(trained.err);
  REQUIRE(trained.code == 0);
  std::vector<nlohmann::json> said;
  std::istringstream in(trained.out);
  for (std::string line; std::getline(in, line);) said.push_back(nlohmann::json::parse(line));
  REQUIRE(said.size() > 1);
  for (const nlohmann::json& object : said)
    for (const char* number : {"step", "loss", "tokens_per_s"}) {
      CAPTURE(number);
      REQUIRE(object.contains(number));
      CHECK(object.at(number).is_number());
    }
  const nlohmann::json& end = said.back();
  CHECK(end.at("step").get<int>() == 6);
  CHECK(run({"test", "-f", end.at("checkpoint").get<std::string>()}).code == 0);
  CHECK(run({TROUPE_PROGRAM, "digest", out}).out == end.at("digest").get<std::string>() + "\n");

  const ProcessResult proved = run({TROUPE_PROGRAM, "ledger", "verify", out, "--json"});
  CAPTURE(proved.err);
  REQUIRE(proved.code == 0);
  const auto ledger = nlohmann::json::parse(proved.out);
  CHECK(ledger.at("steps").get<int>() == 6);
  CHECK(ledger.at("slots").at("node0").get<int>() == 12);
  CHECK(ledger.at("chain").get<std::string>().size() == 64);
}

TEST_CASE("resuming where there is nothing to resume says so and starts at the beginning") {
  const TemporaryFolder folder;
  const std::string job = folder.write("job.toml", kTinyJob);
  const ProcessResult result =
      run({TROUPE_PROGRAM, "train", "--job", job, "--out", folder / "run", "--resume"});
  CHECK(result.code == 0);
  CHECK(result.err.find("holds no checkpoint to resume from") != std::string::npos);
}

TEST_CASE("a job goes on with the data that it was begun with, and is verified with it") {
  const TemporaryFolder folder;
  const std::string job = folder.write("job.toml", kTinyJob), out = folder / "run";
  std::vector<std::string> data;
  for (const uint64_t seed : {1, 2}) {
    troupe::data::TinyOptions language;
    language.seed = seed;
    language.pairs = 300;
    data.push_back(folder / fmt::format("data{}", seed));
    troupe::data::write_tiny_dataset(data.back(), language);
  }
  const auto train = [&](const std::string& with, const char* steps) {
    return std::vector<std::string>{"train", "--job",   job,   "--out",    out,     "--data",
                                    with,    "--steps", steps, "--resume", "--set", "data.source=folder"};
  };
  const auto succeeds = [](std::vector<std::string> words) {
    words.insert(words.begin(), TROUPE_PROGRAM);
    const ProcessResult result = run(words);
    CAPTURE(result.err);
    CHECK(result.code == 0);
  };
  succeeds(train(data[0], "2"));
  check_mistake({"other data", train(data[1], "4"), 2, {"trained on other data", "--data"}});
  succeeds(train(data[0], "4"));
  check_mistake({"other data for the ledger",
                 {"ledger", "verify", out, "--data", data[1]},
                 2,
                 {"trained on other data", data[1]}});
  succeeds({"ledger", "verify", out, "--data", data[0]});
}

TEST_CASE("what is in the folder of a run stays as it is when a job is refused") {
  const TemporaryFolder folder;
  const std::string job = folder.write("job.toml", kTinyJob), out = folder / "run";
  REQUIRE(run({TROUPE_PROGRAM, "train", "--job", job, "--out", out}).code == 0);
  const auto all_of_it = [&] {
    return run({"sh", "-c", "cd '" + out + "' && find . -type f | sort | xargs sha256sum"}).out;
  };
  const std::string before = all_of_it();
  check_mistake(
      {"a trained model", {"train", "--job", job, "--out", out}, 2, {"--resume", "choose another --out"}});
  check_mistake({"a drill there", {"drill", "--job", job, "--out", out}, 2, {out, "new folder"}});
  check_mistake({"a file", {"train", "--job", job, "--out", job, "--resume"}, 2, {"is no folder"}});
  CHECK(all_of_it() == before);

  const std::string cut = "for f in '" + out + "'/checkpoints/*.troupe; do truncate -s 5000 $f; done";
  REQUIRE(run({"sh", "-c", cut}).code == 0);
  const std::string damaged = all_of_it();
  for (const char* how : {"--resume", "--json"})
    check_mistake({"broken checkpoints",
                   {"train", "--job", job, "--out", out, how},
                   1,
                   {"no whole checkpoint", "is broken"}});
  CHECK(all_of_it() == damaged);
}

TEST_CASE("a full disk ends the job with one error that names the checkpoint") {
  const TemporaryFolder folder;
  const std::string job = folder.write("job.toml", kTinyJob);
  const std::string disk = folder / "disk";
  const SmallDisk small(disk, "64k");
  if (!small.mounted()) {
    MESSAGE("skipped: mounting a small tmpfs needs root");
    return;
  }
  check_mistake({"full disk",
                 {"train", "--job", job, "--out", disk + "/run", "--threads", "1"},
                 1,
                 {"checkpoint", "the disk is full"}});
  CHECK(run({"sh", "-c", "ls " + disk + "/run/checkpoints | grep -c troupe$"}).out == "0\n");
}
