#include "actors/node/node.hpp"

#include <doctest/doctest.h>

#include "actors/node/node_decisions.hpp"
#include "tests/actors/support.hpp"

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

TEST_CASE("a client's order begins, is followed, waits or is refused, as the node's job allows") {
  struct Case {
    JobPhase phase;
    OrderFate same, other;  // job
  };
  const Case cases[] = {{JobPhase::idle, OrderFate::begins, OrderFate::begins},
                        {JobPhase::starting, OrderFate::taken_over, OrderFate::refused},
                        {JobPhase::training, OrderFate::followed, OrderFate::refused},
                        {JobPhase::finishing, OrderFate::followed, OrderFate::refused},
                        {JobPhase::ending, OrderFate::refused, OrderFate::refused}};
  for (const Case& c : cases) {
    CAPTURE(int(c.phase));
    OrderSeen order;
    order.phase = c.phase;
    order.heeds_offers = false;  // which this is not
    for (const bool same : {true, false}) {
      CAPTURE(same);
      order.same = same;
      CHECK(int(fate_of(order)) == int(same ? c.same : c.other));
    }
  }
  OrderSeen next;
  next.phase = JobPhase::ending;
  next.may_wait = true;
  CHECK(int(fate_of(next)) == int(OrderFate::waits));
  OrderSeen beside;
  beside.prepares = true;
  CHECK(int(fate_of(beside)) == int(OrderFate::refused));
}

TEST_CASE("a peer's offer begins on an idle node that heeds it, and is not answered elsewhere") {
  for (const JobPhase phase :
       {JobPhase::idle, JobPhase::starting, JobPhase::training, JobPhase::finishing, JobPhase::ending})
    for (const bool prepares : {false, true})
      for (const bool heeds : {false, true}) {
        CAPTURE(int(phase));
        CAPTURE(prepares);
        CAPTURE(heeds);
        OrderSeen offer;
        offer.by_client = false;
        offer.phase = phase;
        offer.prepares = prepares;
        offer.heeds_offers = heeds;
        offer.same = offer.may_wait = true;
        const bool begins = phase == JobPhase::idle && !prepares && heeds;
        CHECK(int(fate_of(offer)) == int(begins ? OrderFate::begins : OrderFate::ignored));
      }
}

TEST_CASE("a peer's word is of another order when both know the job by numbers, and by none alike") {
  using Orders = std::vector<uint64_t>;
  CHECK(are_other_orders(Orders{1, 2}, Orders{3}));
  CHECK_FALSE(are_other_orders(Orders{1, 2}, Orders{3, 2}));
  CHECK_FALSE(are_other_orders(Orders{}, Orders{3}));
  CHECK_FALSE(are_other_orders(Orders{1}, Orders{}));
}

TEST_CASE("a failure ends the job, this node's part, or what is in its memory") {
  using Ends = FailureEnds;
  using Phase = JobPhase;
  PartOfJob with_others;
  with_others.others = with_others.in_view = true;
  PartOfJob alone = with_others, floats = with_others, newcomer, joined = with_others, starting;
  alone.others = false;
  floats.elastic = false;
  newcomer.joining = joined.joining = true;
  starting.phase = Phase::starting;
  PartOfJob saving = with_others, audited = with_others;
  saving.phase = audited.phase = Phase::finishing;
  saving.saving = true;
  PartOfJob confirmed = audited;
  confirmed.awaits_suspect = false;
  const auto of_all = [](ErrorKind kind) { return JobFailed{kind, "", -1, true}; };
  const auto own = [](ErrorKind kind) { return JobFailed{kind, "", -1}; };
  const auto of_peer = [](ErrorKind kind) { return JobFailed{kind, "", 1}; };
  struct Case {
    JobFailed failure;
    PartOfJob part;
    Ends ends;
  };
  const Case cases[] = {
      // its disk, its memory
      {own(ErrorKind::file), with_others, Ends::its_part},
      {own(ErrorKind::file), alone, Ends::the_job},
      {own(ErrorKind::file), floats, Ends::the_job},
      {own(ErrorKind::file), starting, Ends::the_job},
      {own(ErrorKind::file), newcomer, Ends::its_part},
      {own(ErrorKind::corrupt), with_others, Ends::its_state},
      {own(ErrorKind::corrupt), alone, Ends::the_job},
      {of_all(ErrorKind::corrupt), with_others, Ends::the_job},
      // the job itself, where this node has a say
      {own(ErrorKind::numeric), with_others, Ends::the_job},
      {own(ErrorKind::version), newcomer, Ends::its_part},
      {own(ErrorKind::version), joined, Ends::the_job},
      // peers, when all steps are done
      {of_peer(ErrorKind::peer_lost), saving, Ends::nothing},
      {of_peer(ErrorKind::usage), saving, Ends::the_job},
      {of_peer(ErrorKind::peer_lost), audited, Ends::the_job},
      {of_peer(ErrorKind::peer_lost), confirmed, Ends::nothing},
      {own(ErrorKind::timeout), audited, Ends::the_job},
  };
  for (const Case& c : cases) {
    CAPTURE(&c - cases);
    CHECK(int(what_ends(c.failure, c.part)) == int(c.ends));
  }
}
