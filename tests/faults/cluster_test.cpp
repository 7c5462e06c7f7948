// Nodes that run by themselves, and clients that come and go.
#include <csignal>

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "training.hpp"

using namespace troupe::test;

namespace {

// A port that was free a moment ago.
std::string free_port() {
  const int socket_id = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  REQUIRE(bind(socket_id, reinterpret_cast<sockaddr*>(&address), size) == 0);
  REQUIRE(getsockname(socket_id, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  close(socket_id);
  return std::to_string(ntohs(address.sin_port));
}

std::string cluster_text(const std::string& first, const std::string& second, const std::string& more = "") {
  return "[cluster]\nname = \"test\"\n" + more +
         "[[nodes]]\nname = \"alpha\"\naddress = \"127.0.0.1:" + first +
         "\"\nthreads = 1\n[[nodes]]\nname = \"beta\"\naddress = \"127.0.0.1:" + second + "\"\nthreads = 1\n";
}

Process start_node(const std::string& cluster, const std::string& name) {
  Process node({TROUPE_PROGRAM, "node", "--cluster", cluster, "--name", name});
  REQUIRE(node.wait_for_output("listens on", kRunDeadline));
  return node;
}

}  // namespace

TEST_CASE("running nodes take one job after the other and end when they are told to") {
  const TemporaryFolder folder;
  const std::string cluster = folder.write("cluster.toml", cluster_text(free_port(), free_port()));
  Process alpha = start_node(cluster, "alpha"), beta = start_node(cluster, "beta");
  CHECK(train_to_end(folder / "run", 20, {"--cluster", cluster}) == expected_digest(20));
  CHECK(train_to_end(folder / "run", 30, {"--cluster", cluster, "--resume"}) == expected_digest(30));
  CHECK(train_to_end(folder / "other", 20, {"--cluster", cluster}) == expected_digest(20));
  for (Process* node : {&alpha, &beta}) {
    CHECK(node->running());
    node->signal(SIGTERM);
    const auto end = node->wait(kRunDeadline);
    REQUIRE(end);
    CHECK(end->code == 0);
  }
}

TEST_CASE("a node with other numerics is named before anything is trained") {
  const TemporaryFolder folder;
  const std::string first = free_port(), second = free_port();
  const std::string ours =
      folder.write("ours.toml", cluster_text(first, second, "instruction_set = \"v2\"\n"));
  const std::string theirs =
      folder.write("theirs.toml", cluster_text(first, second, "instruction_set = \"v3\"\n"));
  Process alpha = start_node(ours, "alpha"), beta = start_node(theirs, "beta");
  const ProcessResult result = run(train_command(folder / "run", 20, {"--cluster", ours}), {}, kRunDeadline);
  CAPTURE(result.err);
  CHECK(result.code == 1);
  CHECK(result.err.find("node beta differs from alpha: it has \"numerics=") != std::string::npos);
}

TEST_CASE("a node that cannot be reached is named") {
  const TemporaryFolder folder;
  const std::string cluster =
      folder.write("cluster.toml", cluster_text(free_port(), free_port(), "patience_ms = 700\n"));
  Process alpha = start_node(cluster, "alpha");
  const ProcessResult result =
      run(train_command(folder / "run", 20, {"--cluster", cluster}), {}, kRunDeadline);
  CAPTURE(result.err);
  CHECK(result.code == 1);
  CHECK(result.err.find("cannot reach beta at 127.0.0.1:") != std::string::npos);
}

TEST_CASE("a busy cluster refuses a second job") {
  const TemporaryFolder folder;
  const std::string cluster = folder.write("cluster.toml", cluster_text(free_port(), free_port()));
  Process alpha = start_node(cluster, "alpha"), beta = start_node(cluster, "beta");
  Process first(train_command(folder / "run", 100'000, {"--cluster", cluster}, 5));
  REQUIRE(first.wait_for_output("step ", kRunDeadline));
  const ProcessResult second =
      run(train_command(folder / "other", 20, {"--cluster", cluster}), {}, kRunDeadline);
  CHECK(second.code == 1);
  CHECK(second.err.find("is busy with another job") != std::string::npos);
  first.signal(SIGINT);
  const auto end = first.wait(kRunDeadline);
  REQUIRE(end);
  CHECK(end->code == 130);
}
