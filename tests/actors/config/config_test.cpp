#include <set>
#include <sstream>

#include <doctest/doctest.h>

#include "actors/config/cluster.hpp"
#include "actors/config/device.hpp"
#include "actors/config/job.hpp"
#include "actors/config/reader.hpp"
#include "kernels/base/error.hpp"

using namespace troupe;
using namespace troupe::config;

namespace {

template <typename Function>
std::string message_of(Function&& function) {
  try {
    function();
  } catch (const Error& problem) {
    CHECK(problem.kind() == ErrorKind::usage);
    return problem.what();
  }
  return "no error";
}

struct Mistake {
  const char* text;
  const char* message;  // the beginning of it
};

// "key" or "key = default" of each row of the tables in docs/settings.md whose section begins with `title`.
std::set<std::string> documented(const std::string& title) {
  const std::string text = read_text_file(std::string(TROUPE_SOURCE_DIR) + "/docs/settings.md");
  std::set<std::string> found;
  std::istringstream section(text.substr(text.find("## " + title) + 3));
  for (std::string line; std::getline(section, line) && !line.starts_with("## ");) {
    if (!line.starts_with("| `")) continue;
    const size_t key_end = line.find('`', 3), value = line.find("| ", key_end) + 2;
    std::string row = line.substr(3, key_end - 3);
    if (line[value] == '`') row += " = " + line.substr(value + 1, line.find('`', value + 1) - value - 1);
    found.insert(row);
  }
  return found;
}

std::set<std::string> settings_of(const std::string& canonical) {
  std::set<std::string> found;
  std::istringstream lines(canonical);
  for (std::string line; std::getline(lines, line);)
    if (line.find(" = ") != std::string::npos) found.insert(line);
  return found;
}

}  // namespace

TEST_CASE("docs/settings.md has every setting with its default, and no other") {
  CHECK(documented("Job file") == settings_of(canonical_text(parse_job("defaults", ""))));

  std::set<std::string> cluster =
      settings_of(to_toml(parse_cluster("defaults", "[[nodes]]\nname = \"a\"\n")));
  CHECK(cluster.erase("name = \"a\"") == 1);
  cluster.insert("name");
  CHECK(documented("Cluster file") == cluster);
}

TEST_CASE("every mistake in a job file is named by file, line and key, with what would be right") {
  const Mistake mistakes[] = {
      {"[model\nwidth = 1", "job.toml:1: this is not TOML"},
      {"[model]\nwidth = 1\nwidht = 2",
       "job.toml:3: model.widht is not a setting; did you mean model.width?"},
      {"\"model.width\" = 512", "job.toml:1: model.width is not a setting: leave out the quotation marks"},
      {"[model]\n\"width.x\" = 512", "job.toml:2: model.width.x is not a setting: leave out the quotation marks"},
      {"[modle]\nwidth = 1", "job.toml:1: modle is not a setting"},
      {"[model]\n\nwidth = \"wide\"",
       "job.toml:3: model.width is the string \"wide\"; it must be a whole number from 1 to 65536"},
      {"[model]\nwidth = 2.5", "job.toml:2: model.width is 2.5; it must be a whole number"},
      {"[model]\nwidth = -4", "job.toml:2: model.width is -4; it must be a whole number"},
      {"[model]\nencoder_layers = 65",
       "job.toml:2: model.encoder_layers is 65; it must be a whole number from 0 to 64"},
      {"[model]\ndecoder_layers = 65",
       "job.toml:2: model.decoder_layers is 65; it must be a whole number from 1 to 64"},
      {"[model]\nnorm = \"middle\"",
       "job.toml:2: model.norm is the string \"middle\"; it must be one of \"pre\" \"post\""},
      {"[model]\nnorm_kind = \"batch\"",
       "job.toml:2: model.norm_kind is the string \"batch\"; it must be one of \"layer\" \"rms\""},
      {"[model]\npositions = \"rotating\"",
       "job.toml:2: model.positions is the string \"rotating\"; it must be one of \"sinusoidal\" \"learned\" "
       "\"rotary\""},
      {"[model]\nwidth = 60\nheads = 4\npositions = \"rotary\"",
       "job.toml: model.width / model.heads is 15; it must be even with rotary positions"},
      {"[model]\nproducts = \"fp4\"",
       "job.toml:2: model.products is the string \"fp4\"; it must be one of \"compute\" \"fp8\" \"tf32\""},
      {"[model]\ncompute = \"f32\"\nproducts = \"fp8\"",
       "job.toml: model.products is fp8, which needs model.compute bf16, not f32"},
      {"[model]\ncompute = \"bf16\"\nproducts = \"tf32\"",
       "job.toml: model.products is tf32, which needs model.compute f32, not bf16"},
      {"[model]\nnorm = 3", "job.toml:2: model.norm is 3; it must be one of"},
      {"[model]\ndropout = 1.0", "job.toml:2: model.dropout is 1.0; it must be a number from 0 to 0.999"},
      {"[model]\ntied_embeddings = \"yes\"",
       "job.toml:2: model.tied_embeddings is the string \"yes\"; it must be true or false"},
      {"[model]\nwidth = 100\nheads = 3", "job.toml: "},
      {"[training]\nsteps = 0", "job.toml:2: training.steps is 0; it must be a whole number from 1"},
      {"[training]\nsteps = 1e3", "job.toml:2: training.steps is 1000.0; it must be a whole number from 1"},
      {"[training]\nslots = 5000", "job.toml:2: training.slots is 5000"},
      {"[training]\nbits = 60", "job.toml:2: training.bits is 60; it must be a whole number from 2 to 24"},
      {"[training]\nslots = 1000\n[evaluation]\nslots = 100",
       "job.toml: training.slots + evaluation.slots is 1100"},
      {"[optimizer]\nbeta1 = nan", "job.toml:2: optimizer.beta1 is nan"},
      {"[optimizer]\nepsilon = 1.0",
       "job.toml:2: optimizer.epsilon is 1.0; it must be a number from 1e-20 to 0.999"},
      {"[optimizer]\nweight_decay = 1.0",
       "job.toml:2: optimizer.weight_decay is 1.0; it must be a number from 0 to 0.999"},
      {"training = 3", "job.toml:1: training is not a setting"},
  };
  for (const Mistake& mistake : mistakes) {
    CAPTURE(mistake.text);
    const std::string message = message_of([&] { parse_job("job.toml", mistake.text); });
    CAPTURE(message);
    CHECK(message.starts_with(mistake.message));
  }
}

TEST_CASE("an override replaces a setting and is checked like one") {
  const JobConfig job = parse_job("job.toml", "[model]\nwidth = 64", {"model.width=128", "model.norm=post"});
  CHECK(job.model.width == 128);
  CHECK(job.model.norm == model::NormPlacement::post);
  CHECK(parse_job("job.toml", "[model]\nnorm_kind = \"rms\"").model.norm_kind == kernels::NormKind::rms);
  CHECK(message_of([] { parse_job("job.toml", "", {"model.width"}); }).find("section.key=value") !=
        std::string::npos);
  CHECK(message_of([] { parse_job("job.toml", "", {"model.wdth=3"}); }).find("did you mean model.width") !=
        std::string::npos);
  CHECK(parse_job("job.toml", "[model]\nwidth = 100\nheads = 3", {"model.heads=4"}).model.heads == 4);
}

TEST_CASE("a mistake that an override brings is blamed on it, and one of the file on the file") {
  const std::string file = "[model]\nwidth = 64\nheads = 4", bad_file = "[model]\nwidth = 100\nheads = 3";
  const auto check_message = [](const std::string& text, const std::vector<std::string>& overrides,
                                const std::string& begin) {
    const std::string message = message_of([&] { parse_job("job.toml", text, overrides); });
    CAPTURE(message);
    CHECK(message.starts_with(begin));
  };
  check_message(
      file, {"model.width=wide"},
      "--set model.width=wide: model.width is the string \"wide\"; it must be a whole number from 1");
  check_message(file, {"model.norm=\"mid\\dle"}, "--set model.norm=\"mid\\dle: model.norm is the string");
  check_message(file, {"model.norm=pre\x01"},
                "--set model.norm=pre\x01: its value has characters that no setting may have");
  check_message(file, {"model.heads=8", "model.width=100", "training.slots=2"},
                "--set model.width=100: model.heads is 8, which does not divide model.width 100");
  check_message(file, {"evaluation.slots=1000", "training.slots=1000"},
                "--set training.slots=1000: training.slots + evaluation.slots is 2000");
  check_message(file, {"model.heads=5", "model.width=65", "model.width=64"}, "--set model.width=64: ");
  check_message(bad_file, {"training.steps=5"}, "job.toml: model.heads is 3");
  const std::string bad_slots = bad_file + "\n[training]\nslots = 1000\n[evaluation]\nslots = 1000";
  check_message(bad_slots, {"model.heads=4"}, "job.toml: training.slots + evaluation.slots is 2000");
  check_message(bad_slots, {"training.slots=8"}, "job.toml: model.heads is 3");
  check_message(bad_file, {"training.slots=1000", "evaluation.slots=1000"},
                "--set evaluation.slots=1000: training.slots + evaluation.slots is 2000");
  check_message(bad_file, {"model.width=99", "model.width=100"}, "job.toml: model.heads is 3");
  check_message(bad_file, {"model.width=102", "model.width=100"}, "--set model.width=100: model.heads is 3");
}

TEST_CASE(
    "the canonical text reads back as the same job, and its hash leaves out how long and how noisy a run "
    "is") {
  const JobConfig job = parse_job("job.toml", "[optimizer]\nbeta1 = 0.85\n[training]\nseed = 9", {});
  const JobConfig again = parse_job("canonical", canonical_text(job));
  CHECK(canonical_text(again) == canonical_text(job));
  CHECK(canonical_text(job).find("optimizer.beta1 = 0.85\n") != std::string::npos);
  JobConfig longer = job;
  longer.steps = 77;
  longer.report_every = 3;
  longer.checkpoint_every = 5;
  CHECK(job_hash(longer) == job_hash(job));
  JobConfig other = job;
  other.optimizer.beta1 = 0.9f;
  CHECK(job_hash(other) != job_hash(job));
  CHECK(first_difference(job, other) == "optimizer.beta1 = 0.85 here, 0.9 there");
  JobConfig narrow = job;
  narrow.model.products = model::Products::fp8;
  CHECK(job_hash(narrow) != job_hash(job));
  CHECK(parse_job("canonical", canonical_text(narrow)).model.products == model::Products::fp8);
}

TEST_CASE("a schedule that ends ties the job to its length") {
  const JobConfig job =
      parse_job("job.toml", "[schedule]\nkind = \"cosine\"\nwarmup_steps = 10\n[training]\nsteps = 50");
  CHECK(resolved_optimizer(job).schedule.total_steps == 50);
  JobConfig longer = job;
  longer.steps = 60;
  CHECK(job_hash(longer) != job_hash(job));
}

TEST_CASE("every mistake in a cluster file is named") {
  const Mistake mistakes[] = {
      {"", "cluster.toml: no [[nodes]] entry"},
      {"nodes = 3", "cluster.toml:1: nodes must be written as [[nodes]] tables"},
      {"[[nodes]]\nname = \"a\"\nport = 3", "cluster.toml:3: nodes[0].port is not a setting"},
      {"[[nodes]]\nname = \"\"", "cluster.toml: nodes[0].name is \"\"; it must be"},
      {"[[nodes]]\nname = \"12\"", "cluster.toml: nodes[0].name is \"12\"; it must be"},
      {"[[nodes]]\nname = \"-a\"", "cluster.toml: nodes[0].name is \"-a\"; it must be"},
      {"[[nodes]]\nname = \"a\"\n[[nodes]]\nname = \"a\"", "cluster.toml: two nodes are called a"},
      {"[[nodes]]\nname = \"a\"\naddress = \"here\"",
       "cluster.toml: address of node a is \"here\"; it must be host:port"},
      {"[[nodes]]\nname = \"a\"\naddress = \"127.0.0.1:99999\"", "cluster.toml: address of node a"},
      {"[[nodes]]\nname = \"a\"\naddress = \"127.0.0.1:80\"\n[[nodes]]\nname = \"b\"\naddress = "
       "\"127.0.0.1:80\"",
       "cluster.toml: two nodes listen on 127.0.0.1:80"},
      {"[cluster]\npatience_ms = 600\nheartbeat_interval_ms = 400\n[[nodes]]\nname = \"a\"",
       "cluster.toml: cluster.patience_ms (600) must be at least twice"},
      {"[cluster]\ninstruction_set = \"v9\"\n[[nodes]]\nname = \"a\"",
       "cluster.toml:2: cluster.instruction_set is the string \"v9\"; it must be one of \"auto\" \"v2\""},
      {"[[nodes]]\nname = \"a\"\ndevice = \"gpu\"",
       "cluster.toml: device of node a is \"gpu\"; it must be \"cpu\", or a GPU as in \"cuda:0\""},
      {"[cluster]\ntransport = \"pigeon\"\n[[nodes]]\nname = \"a\"", "cluster.toml:2: cluster.transport is"},
  };
  for (const Mistake& mistake : mistakes) {
    CAPTURE(mistake.text);
    const std::string message = message_of([&] { parse_cluster("cluster.toml", mistake.text); });
    CAPTURE(message);
    CHECK(message.starts_with(mistake.message));
  }
}

TEST_CASE("a node's host is a name or an address, of IPv6 in brackets") {
  const auto cluster_at = [](const std::string& address) {
    return parse_cluster("c", "[[nodes]]\nname = \"a\"\naddress = \"" + address + "\"\n");
  };
  for (const char* address : {"alpha.example:7000", "10.0.0.1:0", "[::1]:7000", "[fe80::1]:65535"})
    CHECK(cluster_at(address).nodes[0].address == address);
  for (const char* address :
       {"::1:7000", "fe80::1:7000", "[::1:7000", "[zeta]:7000", "[]:7000", "al pha:7000", ":7000"}) {
    CAPTURE(address);
    CHECK(message_of([&] { cluster_at(address); }).find("it must be host:port, as in") != std::string::npos);
  }
}

TEST_CASE("devices are named in one way, and anything else is refused with what would be right") {
  CHECK(parse_devices("--device", "cpu") == Devices{});
  CHECK(parse_devices("--device", "cuda:12") == Devices{DeviceKind::cuda, {12}});
  CHECK(parse_devices("--device", "cuda:0-3") == Devices{DeviceKind::cuda, {0, 1, 2, 3}});
  CHECK(parse_devices("--device", "cuda:4,0-1,3") == Devices{DeviceKind::cuda, {4, 0, 1, 3}});
  CHECK(parse_devices("--device", "cuda:all") == Devices{DeviceKind::cuda, {}});
  CHECK(parse_devices("--device", "emulated") == Devices{DeviceKind::emulated, {0}});
  CHECK(parse_devices("--device", "emulated:2") == Devices{DeviceKind::emulated, {0, 1}});
  for (const char* name : {"cpu", "cuda:3", "cuda:0,2", "cuda:all", "emulated", "emulated:3"})
    CHECK(to_string(parse_devices("--device", name)) == name);
  const auto refused = [](const char* name, const char* why) {
    CAPTURE(name);
    CHECK_THROWS_WITH_AS(parse_devices("--device", name), doctest::Contains(why), Error);
  };
  for (const char* name : {"", "gpu", "cpu:2", "cuda", "cuda:", "cuda:x", "cuda:1x", "cuda:-1",
                           "cuda:99999999999", "cuda:0,", "cuda:,0", "cuda:0,,1", "cuda:3-1", "cuda:0-",
                           "cuda:0-1-2", "cuda:all,1", "cuda:0,cuda:1", "emulated2"})
    refused(name, "or a GPU as in \"cuda:0\"");
  refused("cuda:0,1,0", "which names GPU 0 twice");
  refused("cuda:1,0-2", "which names GPU 1 twice");
  for (const char* name :
       {"cuda:0-64", "cuda:0-9999", "cuda:0-40,50-80", "emulated:0", "emulated:65", "emulated:"})
    refused(name, "a node has 1 to 64 devices");
}

TEST_CASE("devices of several nodes are told apart by the commas before a name") {
  using Words = std::vector<std::string>;
  CHECK(split_devices({"cuda:0,cuda:1"}) == Words{"cuda:0", "cuda:1"});
  CHECK(split_devices({"cuda:0,1,cuda:2-3,6"}) == Words{"cuda:0,1", "cuda:2-3,6"});
  CHECK(split_devices({"emulated:2,emulated", "cpu"}) == Words{"emulated:2", "emulated", "cpu"});
  CHECK(split_devices({"cuda:0", "1"}) == Words{"cuda:0", "1"});  // refused when it is read
  CHECK(split_devices({"cuda:0,,1", ""}) == Words{"cuda:0,,1", ""});
  CHECK(split_devices({}).empty());
  CHECK_THROWS_WITH_AS(local_cluster(2, 1, {"cuda:0,0"}),
                       doctest::Contains("--device is \"cuda:0,0\", which names"), Error);
  const ClusterConfig cluster = local_cluster(3, 1, {"cuda:0,1,cuda:2,3"});
  CHECK(cluster.nodes[1].device == "cuda:2,3");
  CHECK(cluster.nodes[2].device == "cuda:0,1");
}

TEST_CASE("a cluster file that the program writes reads back the same") {
  ClusterConfig cluster = local_cluster(3, 2, {"cuda:0", "cuda:1"});
  cluster.nodes[1].address = "127.0.0.1:7001";
  const ClusterConfig again = parse_cluster("written", to_toml(cluster));
  CHECK(to_toml(again) == to_toml(cluster));
  CHECK(again.nodes.size() == 3);
  CHECK(again.find("node1")->address == "127.0.0.1:7001");
  CHECK(again.find("node1")->device == "cuda:1");
  CHECK(again.find("node2")->device == "cuda:0");
  CHECK(again.find("node9") == nullptr);
}

TEST_CASE("guests have places behind the nodes of the file, and are not written into it") {
  const ClusterConfig cluster =
      parse_cluster("c", "[cluster]\nguests = 2\n[[nodes]]\nname = \"a\"\n[[nodes]]\nname = \"b\"\n");
  REQUIRE(cluster.nodes.size() == 4);
  CHECK(cluster.listed().size() == 2);
  CHECK(cluster.nodes[3].name == "guest-2");
  CHECK(cluster.nodes[3].guest);
  CHECK(parse_cluster("again", to_toml(cluster)).nodes.size() == 4);
  CHECK(cluster.dials(0, 1));
  CHECK_FALSE(cluster.dials(1, 0));
  CHECK_FALSE(cluster.dials(0, 2));
  CHECK(cluster.dials(2, 0));
  CHECK(cluster.dials(2, 3));
  CHECK_FALSE(cluster.dials(3, 2));
  CHECK(message_of([] {
          parse_cluster("c", "[cluster]\nguests = 2\n[[nodes]]\nname = \"guest-2\"\n");
        }).starts_with("c: two nodes are called guest-2"));
  CHECK(
      message_of([] { parse_cluster("c", "[cluster]\nguests = 2\n"); }).starts_with("c: no [[nodes]] entry"));
}
