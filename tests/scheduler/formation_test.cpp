#include "scheduler/formation.hpp"

#include <doctest/doctest.h>

#include "support.hpp"

using namespace troupe::scheduler;

namespace {

Formation::Options three_nodes() {
  Formation::Options options;
  options.expected = {{0, "node0"}, {1, "node1"}, {2, "node2"}};
  options.patience_us = 5'000'000;
  options.bulk_key = "key";
  return options;
}

JoinRequest join(Rank rank, int64_t step = 0, std::string digest = "d", std::string isa = "v4") {
  JoinRequest request;
  request.member = {rank, "node" + std::to_string(rank), "127.0.0.1:" + std::to_string(1000 + rank), "i",
                    "h"};
  request.fingerprint_text = "job=abc\ninstructions=" + isa + "\n";
  request.fingerprint = "hash of " + request.fingerprint_text;
  request.step = step;
  request.digest = std::move(digest);
  return request;
}

}  // namespace

TEST_CASE("the view forms when all have joined, in ring order whoever came first") {
  Formation formation(three_nodes(), 0);
  CHECK_FALSE(formation.on_join(join(2)));
  CHECK_FALSE(formation.on_join(join(2)));
  CHECK_FALSE(formation.on_join(join(0)));
  CHECK(formation.missing() == std::vector<std::string>{"node1"});
  const auto action = formation.on_join(join(1));
  REQUIRE(action);
  const auto& formed = std::get<ViewFormed>(*action);
  CHECK(formed.view.members.size() == 3);
  CHECK(formed.view.members[2].name == "node2");
  CHECK(formed.view.ballot == Ballot{1, 0});
  CHECK(formed.view.bulk_key == "key");
  CHECK(formed.lacking.empty());
  CHECK_FALSE(formation.on_join(join(1)));
}

TEST_CASE("members whose state is not the leader's are listed") {
  Formation formation(three_nodes(), 0);
  formation.on_join(join(0, 40));
  formation.on_join(join(1, 40, "other"));
  const auto action = formation.on_join(join(2, 20));
  REQUIRE(action);
  CHECK(std::get<ViewFormed>(*action).view.step == 40);
  CHECK(std::get<ViewFormed>(*action).lacking == std::vector<Rank>{1, 2});
}

TEST_CASE("a node with other numerics is named, with what differs") {
  for (const bool leader_first : {true, false}) {
    Formation formation(three_nodes(), 0);
    std::optional<FormationAction> action = formation.on_join(leader_first ? join(0) : join(1, 0, "d", "v3"));
    CHECK_FALSE(action);
    action = formation.on_join(leader_first ? join(1, 0, "d", "v3") : join(0));
    REQUIRE(action);
    CHECK(std::get<Failure>(*action).message ==
          "node node1 differs from node0: it has \"instructions=v3\" instead of \"instructions=v4\"");
  }
}

TEST_CASE("a stranger is refused") {
  Formation formation(three_nodes(), 0);
  JoinRequest stranger = join(1);
  stranger.member.name = "node9";
  const auto action = formation.on_join(stranger);
  REQUIRE(action);
  CHECK(std::get<Failure>(*action).message.find("node9 (rank 1)") != std::string::npos);
}

TEST_CASE("patience has an end, which names who is missing") {
  Formation formation(three_nodes(), 1'000'000);
  formation.on_join(join(0));
  CHECK_FALSE(formation.on_tick(5'999'999));
  const auto action = formation.on_tick(6'000'000);
  REQUIRE(action);
  CHECK(std::get<Failure>(*action).message == "waited 5 s for every node to join; missing: node1, node2");
}

TEST_CASE("a suspected member is a lost node, by its name") {
  CHECK(lost_node("node2", "no heartbeat for 2000 ms").message ==
        "lost node node2: no heartbeat for 2000 ms");
}
