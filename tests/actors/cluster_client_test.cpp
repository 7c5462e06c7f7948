#include "actors/cluster_client.hpp"

#include <doctest/doctest.h>

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
