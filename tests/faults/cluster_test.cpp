// Nodes that run by themselves, and clients that come and go.
#include <csignal>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>
#include <unistd.h>

#include "comm/fault_proxy.hpp"
#include "comm/socket.hpp"
#include "tests/faults/nodes.hpp"
#include "tests/faults/training.hpp"

using namespace troupe::test;

namespace {

// Two nodes that train, and a client whose way to alpha can be cut.
struct CutClient {
  static constexpr char kPatience[] = "patience_ms = 6000\n";

  const TemporaryFolder folder;
  Node alpha{folder, "alpha", kPatience}, beta{folder, "beta", kPatience};
  troupe::comm::FaultProxy way{{.target = alpha.address}};
  const std::string cluster =
      folder.write("cluster.toml", cluster_text(way.address(), beta.address, kPatience));
  Run run{folder / "run", train_command(folder / "run", 100'000, {"--cluster", cluster}, 5)};

  void cut(bool cut) {
    troupe::comm::Faults faults;
    faults.cut = cut;
    way.set(troupe::comm::Direction::both, faults);
  }
};

constexpr int kToldByKilled = 20;  // steps

// `command` is a long job's, with reports each 5 steps: its client is killed in the middle of it.
void begin_and_kill_client(std::vector<std::string> command) {
  Process client(std::move(command));
  REQUIRE(client.wait_for_output("step " + std::to_string(kToldByKilled) + "/", kRunDeadline));
  client.signal(SIGKILL);
  const auto killed = client.wait(kRunDeadline);
  REQUIRE(killed);
}

}  // namespace

TEST_CASE("running nodes take one job after the other and end when they are told to") {
  const TemporaryFolder folder;
  Node alpha(folder, "alpha"), beta(folder, "beta");
  const std::string cluster = cluster_file(folder, alpha, beta);
  CHECK(train_to_end(folder / "run", 20, {"--cluster", cluster}) == expected_digest(20));
  CHECK(train_to_end(folder / "run", 30, {"--cluster", cluster, "--resume"}) == expected_digest(30));
  CHECK(train_to_end(folder / "other", 20, {"--cluster", cluster}) == expected_digest(20));
  for (Process* node : {&alpha.process, &beta.process}) {
    CHECK(node->running());
    node->signal(SIGTERM);
    const auto end = node->wait(kRunDeadline);
    REQUIRE(end);
    CHECK(end->code == 0);
  }
}

TEST_CASE("a job that its leader has to catch up with ends with the last step") {
  const TemporaryFolder folder;
  const std::string out = folder / "run", own = folder / "alpha";
  const Node alpha(folder, "alpha", "", {"--out", own}), beta(folder, "beta", "", {"--out", out});
  const std::string cluster = cluster_file(folder, alpha, beta);
  train_to_end(out, 20, {"--nodes", "1", "--threads", "1"});
  CHECK(train_to_end(out, 21, {"--cluster", cluster, "--resume"}) == expected_digest(21));
}

TEST_CASE("nodes refuse to begin anew where checkpoints are broken and none is whole, and touch nothing") {
  const TemporaryFolder folder;
  const std::string a = folder / "a", b = folder / "b";
  const Node alpha(folder, "alpha", "", {"--out", a}), beta(folder, "beta", "", {"--out", b});
  const std::string cluster = cluster_file(folder, alpha, beta);
  const auto shell = [&](const std::string& command) {
    const ProcessResult result = run({"sh", "-ec", "cd '" + folder.path() + "'; " + command});
    REQUIRE(result.code == 0);
    return result.out;
  };
  const auto check_refused = [&](std::vector<std::string> more) {
    const std::string before = shell("find a b -type f | sort | xargs sha256sum");
    more.insert(more.end(), {"--cluster", cluster});
    const ProcessResult result = run(train_command(folder / "run", 21, more), {}, kRunDeadline);
    CAPTURE(result.err);
    CHECK(result.code == 1);
    const size_t said = result.err.find("troupe: node ");
    CHECK(said != std::string::npos);
    CHECK(said == result.err.rfind("troupe: "));
    CHECK(result.err.find("/checkpoints holds no whole checkpoint", said) != std::string::npos);
    CHECK(shell("find a b -type f | sort | xargs sha256sum") == before);
  };
  train_to_end(folder / "run", 20, {"--cluster", cluster});
  shell("mkdir -p a/checkpoints b/checkpoints whole; cp [ab]/checkpoints/*.troupe whole");
  shell("cp whole/* a/checkpoints; cp whole/* b/checkpoints; truncate -s 5000 [ab]/checkpoints/*.troupe");
  check_refused({"--resume"});
  check_refused({});
  shell("mv b/checkpoints b/away");
  check_refused({"--resume"});
  shell("cp -r whole b/checkpoints");
  CHECK(train_to_end(folder / "run", 21, {"--cluster", cluster, "--resume"}) == expected_digest(21));
}

TEST_CASE("a node with other numerics is named before anything is trained") {
  const TemporaryFolder folder;
  const std::string ours = "instruction_set = \"v2\"\n", theirs = "instruction_set = \"v3\"\n";
  const Node alpha(folder, "alpha", ours), beta(folder, "beta", theirs);
  const std::string cluster = cluster_file(folder, alpha, beta, ours);
  const ProcessResult result =
      run(train_command(folder / "run", 20, {"--cluster", cluster}), {}, kRunDeadline);
  CAPTURE(result.err);
  CHECK(result.code == 1);
  CHECK(result.err.find("node beta differs from alpha: it has \"numerics=") != std::string::npos);
}

TEST_CASE(
    "a node whose cluster file has other guests or another quorum is named before anything is trained") {
  struct Case {
    const char *ours, *theirs, *says;
  };
  const Case cases[] = {{"guests = 1\n", "guests = 2\n",
                         "\"nodes=alpha, beta, guest-1, guest-2\" instead of \"nodes=alpha, beta, guest-1\""},
                        {"", "quorum = true\n", "\"quorum=true\" instead of \"quorum=false\""}};
  for (const Case& c : cases) {
    CAPTURE(c.says);
    const TemporaryFolder folder;
    const Node alpha(folder, "alpha", c.ours), beta(folder, "beta", c.theirs);
    const std::string cluster = cluster_file(folder, alpha, beta);
    const ProcessResult result =
        run(train_command(folder / "run", 20, {"--cluster", cluster}), {}, kRunDeadline);
    CAPTURE(result.err);
    CHECK(result.code == 1);
    CHECK(result.err.find(std::string("node beta differs from alpha: it has ") + c.says) !=
          std::string::npos);
  }
}

TEST_CASE("a node whose cluster file has another order is named before anything is trained") {
  const TemporaryFolder folder;
  const std::string turned =
      folder.write("beta.toml", cluster_text({{"beta", kAnyPort}, {"alpha", kAnyPort}}));
  const Node alpha(folder, "alpha"), beta(node_command({"--cluster", turned, "--name", "beta"}));
  const std::string cluster = cluster_file(folder, alpha, beta);
  const ProcessResult result =
      run(train_command(folder / "run", 20, {"--cluster", cluster}), {}, kRunDeadline);
  CAPTURE(result.err);
  CHECK(result.code == 2);
  CHECK(result.err.find(
            "the cluster file of beta lists beta, alpha, and the client's has beta in another place") !=
        std::string::npos);
}

TEST_CASE("a node that cannot tell its parent where it listens ends") {
  const TemporaryFolder folder;
  const std::string file = folder.write("alpha.toml", cluster_text({{"alpha", kAnyPort}}));
  std::vector<std::string> command = {"/bin/sh", "-c",
                                      "exec \"$0\" \"$@\" 3</dev/null"};  // it cannot be written to
  const auto words = node_command({"--cluster", file, "--name", "alpha", "--one-job", "--announce-fd", "3"});
  command.insert(command.end(), words.begin(), words.end());
  const ProcessResult result = run(command, {}, kRunDeadline);
  CHECK(result.code == 1);
  CHECK(result.err.find("cannot tell the parent process") != std::string::npos);
}

TEST_CASE("a node that cannot be reached is named") {
  const TemporaryFolder folder;
  const Node alpha(folder, "alpha");
  std::string beta;
  const troupe::comm::Descriptor nobody = troupe::comm::reserve_address(kAnyPort, beta);
  const std::string cluster =
      folder.write("cluster.toml", cluster_text(alpha.address, beta, "patience_ms = 2000\n"));
  const ProcessResult result =
      run(train_command(folder / "run", 20, {"--cluster", cluster}), {}, kRunDeadline);
  CAPTURE(result.err);
  CHECK(result.code == 1);
  CHECK(result.err.find("cannot reach beta at " + beta) != std::string::npos);
}

TEST_CASE("a node that may not dial an address of the client's file says so, and goes on") {
  const TemporaryFolder folder;
  Node alpha(folder, "alpha");
  const Node beta(folder, "beta");
  const std::string anywhere = "0.0.0.0" + beta.address.substr(beta.address.rfind(':'));
  const std::string cluster =
      folder.write("cluster.toml", cluster_text(alpha.address, anywhere, "[security]\ninsecure = true\n"));
  const ProcessResult result =
      run(train_command(folder / "run", 20, {"--cluster", cluster}), {}, kRunDeadline);
  CAPTURE(result.err);
  CHECK(result.code == 2);
  CHECK(result.err.find(anywhere) != std::string::npos);
  CHECK(train_to_end(folder / "run", 20, {"--cluster", cluster_file(folder, alpha, beta)}) ==
        expected_digest(20));
}

TEST_CASE("an order that one node refuses is taken back from the others") {
  const TemporaryFolder folder;
  const std::string nowhere = folder.write("file", "") + "/out";
  Node alpha(folder, "alpha");
  const Node beta(folder, "beta", "", {"--out", nowhere});
  const ProcessResult result =
      run(train_command(folder / "run", 100'000, {"--cluster", cluster_file(folder, alpha, beta)}), {},
          kRunDeadline);
  CAPTURE(result.err);
  CHECK(result.code == 1);
  CHECK(result.err.find("troupe: node beta: cannot make the folder " + nowhere) != std::string::npos);
  CHECK(alpha.process.wait_for_output("the job has ended with code 130: stopped: ", kRunDeadline));
}

TEST_CASE(
    "a node that cannot take part pauses longer each time before it tries again, and the others go on") {
  const TemporaryFolder folder;
  const std::string other = folder / "other";
  train_to_end(other, 10, {"--threads", "1", "--set", "optimizer.beta1=0.8"});
  Node beta(folder, "beta", "", {"--out", other});
  troupe::comm::FaultProxy way({.target = beta.address});
  troupe::comm::Faults cut;
  cut.cut = true;
  way.set(troupe::comm::Direction::both, cut);  // until the others have begun
  const Node alpha(node_command(
      {"--cluster", folder.write("alpha.toml", cluster_text(kAnyPort, way.address())), "--name", "alpha"}));
  const std::string cluster =
      folder.write("cluster.toml", cluster_text(alpha.address, way.address(), "patience_ms = 1000\n"));
  Run run(folder / "run",
          train_command(folder / "run", 100'000, {"--cluster", cluster, "--min-nodes", "1"}, 5));
  way.set(troupe::comm::Direction::both, {});
  CHECK(beta.process.wait_for_output("takes no part for 1 s", kRunDeadline));
  CHECK(beta.process.wait_for_output("takes no part for 2 s", kRunDeadline));

  // The same job elsewhere: beta, which rests, takes the order, and fails; alpha, which is busy, does not
  // heed it.
  const ProcessResult other_out = troupe::test::run(
      train_command(folder / "another", 100'000, {"--cluster", cluster}, 5), {}, kRunDeadline);
  CHECK(other_out.code != 0);
  run.finish_and_check();
}

TEST_CASE("a busy cluster refuses a second job, also the same one, and goes on") {
  const TemporaryFolder folder;
  const Node alpha(folder, "alpha"), beta(folder, "beta");
  const std::string cluster = cluster_file(folder, alpha, beta);
  Process first(train_command(folder / "run", 100'000, {"--cluster", cluster}, 5));
  REQUIRE(first.wait_for_output("step ", kRunDeadline));
  const ProcessResult second =
      run(train_command(folder / "other", 100'000, {"--cluster", cluster}, 5), {}, kRunDeadline);
  CHECK(second.code == 1);
  CHECK(second.err.find("is busy with another job") != std::string::npos);
  CHECK(second.err.find("no node is left") == std::string::npos);  // whatever it has heard of the first
  first.signal(SIGINT);
  const auto end = first.wait(kRunDeadline);
  REQUIRE(end);
  CHECK(end->code == 130);
  CHECK(digest_of(*end).size() == 64);
}

TEST_CASE("a node that is told to end in the middle of a job leaves it to the others and ends") {
  const TemporaryFolder folder;
  Node alpha(folder, "alpha"), beta(folder, "beta");
  const std::string cluster = cluster_file(folder, alpha, beta);
  Process client(train_command(folder / "run", 100'000, {"--cluster", cluster}, 5));
  REQUIRE(client.wait_for_output("step ", kRunDeadline));
  beta.process.signal(SIGTERM);
  const auto end = beta.process.wait(kRunDeadline);
  REQUIRE(end);
  CHECK(end->code == 0);
  REQUIRE(client.wait_for_output("node beta has left the job", kRunDeadline));
  REQUIRE(client.wait_for_output(" on: alpha\n", kRunDeadline));
  client.signal(SIGINT);
  const auto stopped = client.wait(kRunDeadline);
  REQUIRE(stopped);
  CHECK(stopped->code == 130);
  CHECK(digest_of(*stopped).size() == 64);
  CHECK(alpha.process.running());
}

TEST_CASE("a process whose name a newer one has taken ends and says why, and the job goes on") {
  const TemporaryFolder folder;
  const Node beta(folder, "beta");
  const auto alpha = node_command(
      {"--cluster", folder.write("alpha.toml", cluster_text(kAnyPort, beta.address)), "--name", "alpha"});
  Node older(alpha);
  Run job(folder / "run",
          train_command(folder / "run", 100'000, {"--cluster", cluster_file(folder, older, beta)}, 5));
  job.wait_for("step ");
  Node newer(alpha);
  const auto end = older.process.wait(kRunDeadline);
  REQUIRE(end);
  CAPTURE(end->err);
  CHECK(end->code == 1);
  CHECK((end->out + end->err).find("has been replaced by a newer one: end it") != std::string::npos);
  CHECK(newer.process.running());
  job.finish_and_check();
}

TEST_CASE("a job, and a node, that waits for others before the first step can be stopped") {
  const TemporaryFolder folder;
  std::string silent[2];
  const troupe::comm::Descriptor first = troupe::comm::reserve_address(kAnyPort, silent[0]),
                                 second = troupe::comm::reserve_address(kAnyPort, silent[1]);
  const auto text = [&](const std::string& alpha) {
    return cluster_text({{"alpha", alpha}, {"beta", silent[0]}, {"gamma", silent[1]}}, "quorum = true\n");
  };
  for (const bool node_leaves : {false, true}) {
    CAPTURE(node_leaves);
    Node alpha(node_command({"--cluster", folder.write("alpha.toml", text(kAnyPort)), "--name", "alpha"}));
    const std::string cluster = folder.write("cluster.toml", text(alpha.address));
    Process client(train_command(folder / "run", 100'000, {"--cluster", cluster, "--min-nodes", "1"}, 5));
    REQUIRE(alpha.process.wait_for_output("waits for the first view", kRunDeadline));
    Process& asked = node_leaves ? alpha.process : client;
    asked.signal(node_leaves ? SIGTERM : SIGINT);
    const auto end = asked.wait(kRunDeadline);
    REQUIRE(end);
    CHECK(end->code == (node_leaves ? 0 : 130));
    if (node_leaves) continue;
    CHECK(alpha.process.wait_for_output("stopped before this node took part", kRunDeadline));
    CHECK(alpha.process.running());
  }
}

TEST_CASE("the leader ends a job also when its word reaches a member after that of another member") {
  const TemporaryFolder folder;
  const auto start = [&](const std::string& name, const std::string& beta, const std::string& gamma) {
    const std::string file =
        folder.write(name + ".toml", cluster_text({{"alpha", kAnyPort}, {"beta", beta}, {"gamma", gamma}}));
    return Node(node_command({"--cluster", file, "--name", name}));
  };
  const Node gamma = start("gamma", kAnyPort, kAnyPort), beta = start("beta", kAnyPort, gamma.address);
  troupe::comm::FaultProxyOptions options;
  options.target = beta.address;
  troupe::comm::FaultProxy slow_way(options);  // between beta and alpha, who dials
  troupe::comm::Faults delay;
  delay.delay_ms = 300;
  slow_way.set(troupe::comm::Direction::both, delay);
  const Node alpha = start("alpha", slow_way.address(), gamma.address);
  const std::string cluster = folder.write(
      "cluster.toml",
      cluster_text({{"alpha", alpha.address}, {"beta", slow_way.address()}, {"gamma", gamma.address}}));
  const ProcessResult result =
      run(train_command(folder / "run", 3, {"--cluster", cluster}), {}, kRunDeadline);
  CAPTURE(result.out);
  CAPTURE(result.err);
  CHECK(result.code == 0);
  CHECK(digest_of(result) == expected_digest(3));
  // Only the leader knows where the checkpoint is; without its word the client waits for a minute, and goes.
  CHECK(result.out.find("/checkpoint-0000000003-alpha") != std::string::npos);
}

TEST_CASE("a client that stands still while its job ends hears how it has ended") {
  constexpr int kSteps = 400;  // longer than the nodes wait for its signs of life
  const TemporaryFolder folder;
  Node alpha(folder, "alpha"), beta(folder, "beta");
  Process client(train_command(folder / "run", kSteps, {"--cluster", cluster_file(folder, alpha, beta)}, 5));
  REQUIRE(client.wait_for_output("step 5/", kRunDeadline));
  client.signal(SIGSTOP);
  for (Node* node : {&alpha, &beta})
    REQUIRE(node->process.wait_for_output("the job has ended with code 0", kRunDeadline));
  client.signal(SIGCONT);
  const auto result = client.wait(kRunDeadline);
  REQUIRE(result);
  CAPTURE(result->err);
  CHECK(result->code == 0);
  CHECK(digest_of(*result) == expected_digest(kSteps));
}

TEST_CASE("a client that loses its way to a node just before its job ends hears how it has ended") {
  constexpr int kSteps = 400;
  const std::string patience = "patience_ms = 6000\n";  // longer than the steps after the first take
  const TemporaryFolder folder;
  Node alpha(
      node_command({"--cluster", folder.write("alpha.toml", cluster_text({{"alpha", kAnyPort}}, patience)),
                    "--name", "alpha"}));
  troupe::comm::FaultProxy way({.target = alpha.address});
  const std::string cluster =
      folder.write("cluster.toml", cluster_text({{"alpha", way.address()}}, patience));
  Process client(train_command(folder / "run", kSteps, {"--cluster", cluster}, 5));
  REQUIRE(client.wait_for_output("step 5/", kRunDeadline));
  troupe::comm::Faults cut;
  cut.cut = true;
  way.set(troupe::comm::Direction::both, cut);
  REQUIRE(alpha.process.wait_for_output("the job has ended with code 0", kRunDeadline));
  alpha.process.wait_for_output("which has not heard how the job ends", std::chrono::seconds(30));
  way.heal();
  const auto result = client.wait(kRunDeadline);
  REQUIRE(result);
  CAPTURE(result->err);
  CHECK(result->code == 0);
  CHECK(digest_of(*result) == expected_digest(kSteps));
}

TEST_CASE("a client whose nodes have lost one another follows the one that goes on when the other fails") {
  constexpr char kPatience[] = "patience_ms = 1000\n";
  const TemporaryFolder folder;
  Node beta(folder, "beta", kPatience);
  troupe::comm::FaultProxy way({.target = beta.address});  // of alpha, who dials
  Node alpha(
      node_command({"--cluster", folder.write("alpha.toml", cluster_text(kAnyPort, way.address(), kPatience)),
                    "--name", "alpha"}));
  const auto cluster = [&](const std::string& to_beta) {
    return folder.write("cluster.toml", cluster_text(alpha.address, to_beta, kPatience));
  };
  // From now on they are linked: so alpha will not dial beta where the client finds it.
  train_to_end(folder / "first", 5, {"--cluster", cluster(way.address())});
  Run run(folder / "run", train_command(folder / "run", 100'000, {"--cluster", cluster(beta.address)}, 5));
  troupe::comm::Faults cut;
  cut.cut = true;
  way.set(troupe::comm::Direction::both, cut);
  REQUIRE(beta.process.wait_for_output(": beta from step", kRunDeadline));  // their logs of their views
  REQUIRE(alpha.process.wait_for_output(": alpha from step", kRunDeadline));
  beta.process.signal(SIGINT);
  beta.process.signal(SIGTERM);  // at once, without a checkpoint
  const auto ended = beta.process.wait(kRunDeadline);
  REQUIRE(ended);
  run.finish_and_check();
}

TEST_CASE("a client that was cut off while a view began hears of it when it is back") {
  CutClient there;
  there.cut(true);
  there.run.wait_for("lost node alpha");
  there.beta.process.signal(SIGKILL);
  REQUIRE(there.alpha.process.wait_for_output(": alpha from step", kRunDeadline));  // its log of the view
  there.cut(false);
  there.run.wait_for_view("alpha");
  there.run.finish_and_check();
}

TEST_CASE("a client whose only working node dies ends, though one without a part in the job is linked") {
  constexpr char kPatience[] = "patience_ms = 1000\n";
  const TemporaryFolder folder;
  const std::string nowhere = folder.write("file", "") + "/out";
  troupe::comm::FaultProxy way(troupe::comm::FaultProxyOptions{});  // to beta, once it is there
  Node alpha(
      node_command({"--cluster", folder.write("alpha.toml", cluster_text(kAnyPort, way.address(), kPatience)),
                    "--name", "alpha"}));
  const std::string cluster =
      folder.write("cluster.toml", cluster_text(alpha.address, way.address(), kPatience));
  Run run(folder / "run",
          train_command(folder / "run", 100'000, {"--cluster", cluster, "--min-nodes", "1"}, 5));
  const Node beta(folder, "beta", kPatience, {"--out", nowhere});
  way.set_target(beta.address);
  run.wait_for("node beta is here again");
  alpha.process.signal(SIGKILL);
  const ProcessResult result = run.wait();
  CHECK(result.code == 1);
  CHECK(result.err.find("troupe: lost node alpha: ") != std::string::npos);
  CHECK(result.err.find("no node is left") != std::string::npos);
}

TEST_CASE("Ctrl-C stops a job also when the client cannot reach the leader any more") {
  CutClient there;
  there.cut(true);
  there.run.finish_and_check();
  CHECK(there.alpha.process.wait_for_output("the job has ended with code 130", kRunDeadline));
}

TEST_CASE("a job whose client was killed is followed by the same command, and ended by its Ctrl-C") {
  const TemporaryFolder folder;
  const Node alpha(folder, "alpha"), beta(folder, "beta");
  const auto command =
      train_command(folder / "run", 100'000, {"--cluster", cluster_file(folder, alpha, beta)}, 5);
  begin_and_kill_client(command);
  Process client(command);
  const bool told = client.wait_for_output("/100000  epoch", kRunDeadline);
  CAPTURE(client.err());
  REQUIRE(told);
  CHECK(std::stoi(client.out().substr(client.out().find("step ") + 5)) > kToldByKilled);
  client.signal(SIGINT);
  const auto stopped = client.wait(kRunDeadline);
  REQUIRE(stopped);
  CHECK(stopped->code == 130);
  CHECK(digest_of(*stopped) == expected_digest(last_step(*stopped)));
}

TEST_CASE("a client that follows a job hears who takes part, however long it has waited for other nodes") {
  const TemporaryFolder folder;
  std::string silent;
  const troupe::comm::Descriptor nobody = troupe::comm::reserve_address(kAnyPort, silent);
  const Node alpha(node_command(
      {"--cluster", folder.write("alpha.toml", cluster_text(kAnyPort, silent)), "--name", "alpha"}));
  const auto train = [&](const std::string& cluster, std::vector<std::string> more) {
    more.insert(more.end(), {"--cluster", cluster});
    return train_command(folder / "run", 100'000, std::move(more), 5);
  };
  begin_and_kill_client(train(folder.write("one.toml", cluster_text({{"alpha", alpha.address}})), {}));
  const std::string both = folder.write("both.toml", cluster_text(alpha.address, silent));
  Process client(train(both, {"--min-nodes", "1"}));
  CHECK(client.wait_for_output(" on: alpha\n", kRunDeadline));  // of two that its file lists
  client.signal(SIGINT);
  const auto stopped = client.wait(kRunDeadline);
  REQUIRE(stopped);
  CHECK(stopped->code == 130);
}
