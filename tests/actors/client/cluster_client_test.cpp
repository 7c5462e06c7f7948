#include "actors/client/cluster_client.hpp"

#include <doctest/doctest.h>

#include "actors/client/known_nodes.hpp"
#include "comm/socket.hpp"
#include "kernels/base/error.hpp"

using namespace troupe;
using namespace troupe::actors;

TEST_CASE("waiting for nodes that cannot be reached ends with their names, or when it is given up") {
  config::ClusterConfig cluster = config::local_cluster(1, 1);
  std::string& address = cluster.nodes[0].address;
  const comm::Descriptor kept = comm::reserve_address("127.0.0.1:0", address);  // nobody listens there
  ClusterClient client(cluster);
  try {
    client.wait_for_links(std::chrono::milliseconds(50));
    FAIL("reached");
  } catch (const Error& problem) {
    CHECK(problem.kind() == ErrorKind::network);
    CHECK(std::string(problem.what()).find("node0 at " + address) != std::string::npos);
  }
  int asked = 0;
  try {
    client.wait_for_links(std::chrono::hours(1), 0, [&] { return ++asked > 2; });
    FAIL("reached");
  } catch (const Error& problem) {
    CHECK(problem.kind() == ErrorKind::cancelled);
  }
}

TEST_CASE("a job goes on without a node that was cut off from others who are in it") {
  KnownNodes nodes({"alpha", "beta", "gamma", "idle"});
  CHECK_FALSE(nodes.others_go_on("alpha"));  // nobody has told of a view
  for (const char* node : {"alpha", "beta", "gamma"}) nodes.saw_view(node, {"alpha", "beta", "gamma"});
  CHECK_FALSE(nodes.others_go_on("gamma"));
  nodes.saw_view("gamma", {"gamma"});
  CHECK(nodes.others_go_on("gamma"));  // whether or not the others have noticed
  CHECK(nodes.others_go_on("alpha"));  // gamma does
  nodes.saw_view("alpha", {"alpha", "beta"});
  nodes.saw_view("beta", {"alpha", "beta"});
  CHECK(nodes.others_go_on("gamma"));
  CHECK(nodes.gone("gamma"));
  CHECK_FALSE(nodes.gone("gamma"));
  CHECK_FALSE(nodes.others_go_on("alpha"));
  CHECK(nodes.gone("alpha"));
  CHECK_FALSE(nodes.others_go_on("beta"));  // of the idle one nothing is expected
}

TEST_CASE("a node whose link comes back is counted on again, but not for what it told before") {
  KnownNodes nodes({"alpha", "beta"});
  nodes.saw_view("alpha", {"alpha"});
  nodes.saw_view("beta", {"beta"});
  nodes.lost("beta");
  CHECK(nodes.gone("beta"));
  CHECK(nodes.any_is_lost());
  CHECK(nodes.found("beta"));
  CHECK_FALSE(nodes.found("beta"));
  CHECK_FALSE(nodes.any_is_lost());
  CHECK(nodes.takes_part("beta"));
  CHECK_FALSE(nodes.others_go_on("alpha"));
}

TEST_CASE("of an idle node nothing is expected until it tells of a view") {
  KnownNodes nodes({"alpha", "beta"});
  nodes.saw_view("alpha", {"alpha"});
  CHECK_FALSE(nodes.is_last("alpha"));
  CHECK(nodes.gone("alpha"));
  CHECK_FALSE(nodes.any_in_view());
  CHECK(nodes.is_last("beta"));
  CHECK(nodes.idle("beta"));
  CHECK_FALSE(nodes.idle("beta"));
  CHECK_FALSE(nodes.any_takes_part());
  nodes.saw_view("alpha", {"alpha", "beta"});  // it has refused
  CHECK_FALSE(nodes.any_in_view());
  nodes.saw_view("beta", {"beta"});
  CHECK(nodes.takes_part("beta"));
  CHECK(nodes.any_in_view());
  CHECK_FALSE(nodes.idle("gamma"));
}

TEST_CASE("a node whose part has failed is counted on again when it tells of a view") {
  KnownNodes nodes({"alpha", "beta"});
  for (const char* node : {"alpha", "beta"}) nodes.saw_view(node, {"alpha", "beta"});
  CHECK(nodes.idle("beta"));
  CHECK(nodes.is_last("alpha"));
  nodes.saw_view("beta", {"alpha", "beta"});
  CHECK_FALSE(nodes.is_last("alpha"));
  CHECK(nodes.gone("alpha"));
  CHECK(nodes.any_takes_part());
}

TEST_CASE("each order has a number of its own") {
  CHECK(new_order() != new_order());
}
