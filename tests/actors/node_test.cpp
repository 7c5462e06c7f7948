#include "actors/node.hpp"

#include <doctest/doctest.h>

#include "support.hpp"

using namespace troupe;
using namespace troupe::actors;

TEST_CASE("a node whose actor fails ends") {
  TestSystem test;
  auto services = std::make_shared<NodeServices>();
  services->cluster = config::local_cluster(1, 1);
  services->rank = 1;  // which is nobody's
  int code = 0;
  const node_actor node = spawn_node(test.system, {services, false, [&](int ended) { code = ended; }});
  wire::Envelope order;
  order.mutable_prepare_start();
  caf::anon_send(node, LinkMessage{"client:1", true, std::make_shared<const wire::Envelope>(order)});
  test.run();
  CHECK(code == 1);
}
