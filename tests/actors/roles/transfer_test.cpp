// What a node gives to one that follows, and what it takes when it follows itself, by stand-ins for the rest:
// disks that cannot be written to, what is left in OUT/transfer, states that take long to install, and
// ledgers with gaps.
#include <chrono>
#include <deque>
#include <filesystem>
#include <mutex>
#include <optional>
#include <semaphore>
#include <thread>

#include <doctest/doctest.h>

#include "actors/clock.hpp"
#include "actors/ledger.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"
#include "kernels/base/hash.hpp"
#include "model/state.hpp"
#include "tests/actors/support.hpp"
#include "tests/support/process.hpp"

using namespace troupe;
using namespace troupe::actors;

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kDeadline{60};
constexpr int64_t kStep = 5;  // of the state

// What a node asks of its peer, one after another.
class Questions {
 public:
  struct Question {
    EnvelopePtr envelope;
    Clock::time_point at;
  };

  void put(const EnvelopePtr& envelope) {
    {
      const std::lock_guard lock(mutex_);
      all_.push_back({envelope, Clock::now()});
    }
    came_.release();
  }
  std::optional<Question> next(Clock::time_point until) {
    if (!came_.try_acquire_until(until)) return std::nullopt;
    const std::lock_guard lock(mutex_);
    Question question = all_.front();
    all_.pop_front();
    return question;
  }
  // The next one for that piece.
  Question next(wire::BlobKind kind, uint32_t index) {
    const auto until = Clock::now() + kDeadline;
    while (const auto question = next(until)) {
      const wire::Fetch& wanted = question->envelope->fetch();
      if (wanted.kind() == kind && wanted.index() == index) return *question;
    }
    FAIL("nobody has asked for it");
    return {};
  }

 private:
  std::mutex mutex_;
  std::deque<Question> all_;
  std::counting_semaphore<> came_{0};
};

post_actor spawn_peer(caf::actor_system& system, Questions& questions) {
  return system.spawn([&questions]() -> post_actor::behavior_type {
    return {[&questions](const Post& post) { questions.put(post.envelope); }};
  });
}

supervisor_actor spawn_supervisor_stand_in(caf::actor_system& system, Questions& notices) {
  return system.spawn([&notices]() -> supervisor_actor::behavior_type {
    return {[](const JobFailed&) {},
            [](const StepsDone&) {},
            [&notices](const Publish& told) { notices.put(told.envelope); },
            [](const scheduler::BeginView&) {},
            [](scheduler::EveryoneLeft) {},
            [](ReadyToLeave) {},
            [](PartEnded) {}};
  });
}

// What a stand-in for a member is given.
struct Installs {
  bool slow = false;  // a state is installed when the member is sent a Tick
  std::counting_semaphore<> states{0}, totals{0};
};

// The state that it is given is that of kStep, and the totals are those after it.
member_actor spawn_member_stand_in(caf::actor_system& system, Installs& installs) {
  return system.spawn([&installs](member_actor::pointer self) -> member_actor::behavior_type {
    const auto waits = std::make_shared<caf::typed_response_promise<Installed>>();
    const auto step = std::make_shared<int64_t>(kStep);
    return {[](const Post&) {},
            [](const TellMembership&) {},
            [](const scheduler::BeginView&) {},
            [](const scheduler::FenceMember&) {},
            [](const scheduler::LeaveView&) {},
            [](const LeaveWanted&) {},
            [](const Reduced&) {},
            [](const ReduceFailed&) {},
            [](const TotalFetched&) {},
            [](const Committed&) {},
            [](const SumCleared&) {},
            [self, waits, &installs](const InstallState&) -> caf::result<Installed> {
              installs.states.release();
              if (!installs.slow) return Installed{true, false, kStep, ""};
              *waits = self->make_response_promise<Installed>();
              return *waits;
            },
            [step, &installs](const InstallTotal&) {
              installs.totals.release();
              return Installed{true, false, ++*step, ""};
            },
            [waits](const Tick&) {
              waits->deliver(Installed{true, false, kStep, ""});
            }};
  });
}

// Adds what it is handed over to the ledger of node1.
monitor_actor spawn_monitor_stand_in(caf::actor_system& system, std::counting_semaphore<>& handed_over,
                                     const std::filesystem::path& ledger) {
  return system.spawn([&handed_over, ledger]() -> monitor_actor::behavior_type {
    return {[](const StepReport&) {}, [](const Validated&) {}, [](const scheduler::BeginView&) {},
            [&handed_over, ledger](const LedgerOfOthers& other) {
              merge_ledger(ledger, other.path);
              handed_over.release();
            },
            [](const FlushReports&) { return ReportsFlushed{}; }};
  });
}

// Says when it is asked for a state, and gives it at once.
aggregator_actor spawn_aggregator_stand_in(caf::actor_system& system, std::shared_ptr<source_actor> source,
                                           std::counting_semaphore<>& asked) {
  return system.spawn([source, &asked](aggregator_actor::pointer self) -> aggregator_actor::behavior_type {
    return {[](const BuildEngine&) { return EngineBuilt{}; },
            [](const TakePart&) {},
            [](const scheduler::BeginView&) {},
            [](const Feed&) {},
            [](const Reduce&) {},
            [](const Commit&) {},
            [](const scheduler::ClearSum&) {},
            [self, source, &asked](const StateWanted& wanted) {
              auto state = std::make_shared<model::TrainState>();
              state->step = wanted.step;
              self->send(*source, StateTaken{wanted.step, state, wanted.step});
              asked.release();
            },
            [](const KeepTotals&) {},
            [](const InstallState&) { return Installed{}; },
            [](const InstallTotal&) { return Installed{}; },
            [](const SaveFinal&) { return Saved{}; }};
  });
}

JobContextPtr context_of(scheduler::Rank rank, const std::string& out) {
  auto context = std::make_shared<JobContext>(*test_context(3, rank, 100, 4));
  context->out_folder = out;
  return context;
}

template <class... Handles>
void end_all(const Handles&... handles) {
  (caf::anon_send_exit(handles, caf::exit_reason::user_shutdown), ...);
}

// node1, which lacks the state. The test is node0 and node2, which have it; node0 leads. At the end of the
// scope it has ended.
struct Following {
  explicit Following(const std::string& out)
      : ledger(ledger_path(out, "node1")), context(context_of(1, out)) {
    follower = spawn_follower(system, {context, supervisor}, {{0, peer}, {2, other}}, member, monitor);
  }
  ~Following() { end_all(follower, peer, other, member, monitor, supervisor); }

  void offer(const std::vector<scheduler::Rank>& sources = {0}) const {
    caf::anon_send(follower, scheduler::FollowFrom{sources, kStep});
  }

  void give(const Questions::Question& question, const std::string& whole, scheduler::Rank from = 0) const {
    wire::Envelope message = envelope(*context, {{}, question.envelope->fence().step()});
    const wire::Fetch& wanted = question.envelope->fetch();
    wire::Piece& piece = *message.mutable_piece();
    piece.set_kind(wanted.kind());
    piece.set_index(wanted.index());
    piece.set_blob_bytes(whole.size());
    piece.set_data(whole.substr(wanted.index() * wire::kPieceBytes, wire::kPieceBytes));
    piece.set_checksum(checksum64(piece.data().data(), piece.data().size()));
    caf::anon_send(follower, Post{from, share(std::move(message))});
  }
  // What the follower tells clients.
  std::string next_notice() {
    const auto notice = notices.next(Clock::now() + kDeadline);
    return notice ? notice->envelope->event().why() : "";
  }
  void refuse(const Questions::Question& question) const {
    wire::Envelope message = envelope(*context, {{}, question.envelope->fence().step()});
    message.mutable_piece()->set_kind(question.envelope->fetch().kind());
    message.mutable_piece()->set_absent("it is not here any more");
    caf::anon_send(follower, Post{0, share(std::move(message))});
  }

  Questions questions, others;  // of node0 and node2; they outlive the actors
  Questions notices;
  Installs installs;
  std::counting_semaphore<> handed_over{0};
  const std::filesystem::path ledger;
  caf::actor_system_config config;
  caf::actor_system system{config};
  JobContextPtr context;
  post_actor peer = spawn_peer(system, questions), other = spawn_peer(system, others);
  supervisor_actor supervisor = spawn_supervisor_stand_in(system, notices);
  member_actor member = spawn_member_stand_in(system, installs);
  monitor_actor monitor = spawn_monitor_stand_in(system, handed_over, ledger);
  follower_actor follower;
};

// Passes on what one says to the other, for the test to see.
template <class Handle>
post_actor spawn_way(caf::actor_system& system, std::shared_ptr<Handle> to, Questions& seen) {
  return system.spawn([to, &seen](post_actor::pointer self) -> post_actor::behavior_type {
    return {[self, to, &seen](const Post& post) {
      seen.put(post.envelope);
      self->send(*to, post);
    }};
  });
}

std::shared_ptr<const model::CheckpointInfo> no_info() {
  return std::make_shared<const model::CheckpointInfo>();
}

struct Released {  // at the end of a scope, whatever a test has found: who waits for it ends
  std::counting_semaphore<>& gate;
  ~Released() { gate.release(); }
};

// Writes as the real one does, once it may.
state_writer_actor spawn_slow_writer(caf::actor_system& system, const JobContextPtr& context,
                                     std::counting_semaphore<>& may_write) {
  return system.spawn<caf::detached>([context, &may_write]() -> state_writer_actor::behavior_type {
    return {[context, &may_write](const WriteState& wanted) {
      may_write.acquire();
      const std::filesystem::path path = offered_state_path(*context);
      std::filesystem::create_directories(path.parent_path());
      model::save_checkpoint(path, *no_info(), *wanted.state);
      return StateWritten{wanted.state->step, ""};
    }};
  });
}

// node0, which gives what it has, and node1, which follows it. At the end of the scope both have ended.
struct Transfer {
  explicit Transfer(const std::string& out, std::counting_semaphore<>* may_write = nullptr)
      : monitor(spawn_monitor_stand_in(system, handed_over, ledger_path(out, "node1"))) {
    installs.slow = true;
    writer = may_write != nullptr ? spawn_slow_writer(system, context_of(0, out), *may_write)
                                  : spawn_state_writer(system, {context_of(0, out), {}}, no_info());
    *source = spawn_source(system, {context_of(0, out), {}}, {{1, to_follower}}, aggregator, writer);
    *follower = spawn_follower(system, {context_of(1, out), {}}, {{0, to_source}}, member, monitor);
  }
  ~Transfer() { end_all(*source, writer, *follower, to_source, to_follower, aggregator, member, monitor); }

  Questions questions, answers;  // of the follower, and to it; they outlive the actors
  Installs installs;
  std::counting_semaphore<> asked{0}, handed_over{0};
  caf::actor_system_config config;
  caf::actor_system system{config};
  std::shared_ptr<source_actor> source = std::make_shared<source_actor>();
  state_writer_actor writer;
  std::shared_ptr<follower_actor> follower = std::make_shared<follower_actor>();
  post_actor to_source = spawn_way(system, source, questions);
  post_actor to_follower = spawn_way(system, follower, answers);
  aggregator_actor aggregator = spawn_aggregator_stand_in(system, source, asked);
  member_actor member = spawn_member_stand_in(system, installs);
  monitor_actor monitor;
};

std::string ledger_of(const std::vector<int64_t>& steps) {
  std::string lines;
  for (const int64_t step : steps) {
    LedgerRecord record;
    record.step = step;
    lines += to_line(record) + "\n";
  }
  return lines;
}

std::string two_pieces() {
  return std::string(wire::kPieceBytes, 'a') + "b";
}

}  // namespace

TEST_CASE("a node that cannot write a state down pauses before it asks for one again") {
  const test::TemporaryFolder folder;
  std::filesystem::create_directories(folder / "transfer/state-for-node1.part/in the way");
  Following node(folder.path());
  node.offer();
  const Questions::Question first = node.questions.next(wire::BLOB_STATE, 0);
  const auto given = Clock::now();
  node.give(first, "a state");
  int early = 0;
  bool again = false;
  for (const auto until = Clock::now() + kDeadline; Clock::now() < until && !again;) {
    node.offer();
    const auto question = node.questions.next(Clock::now() + std::chrono::milliseconds(10));
    if (!question || question->at < given) continue;
    again = question->at - given >= std::chrono::milliseconds(900);
    early += again ? 0 : 1;
  }
  CHECK(again);
  CHECK(early <= 1);  // a question that was under way may have been asked again before its answer came
}

TEST_CASE("a node whose givers do not keep what it needs says so, and pauses before it begins anew") {
  const test::TemporaryFolder folder;
  Following node(folder.path());
  node.offer();
  node.give(node.questions.next(wire::BLOB_STATE, 0), "a state");
  const Questions::Question total = node.questions.next(wire::BLOB_TOTAL, 0);
  const auto refused = Clock::now();
  node.refuse(total);
  const std::string said = node.next_notice();
  CHECK(said.find("cannot catch up with the others: node0: it is not here any more") != said.npos);
  std::optional<Questions::Question> again;
  for (const auto until = Clock::now() + kDeadline; Clock::now() < until && !again;) {
    node.offer();
    again = node.questions.next(Clock::now() + std::chrono::milliseconds(10));
    if (again && again->envelope->fetch().kind() != wire::BLOB_STATE) again.reset();
  }
  REQUIRE(again);
  CHECK(again->at - refused >= std::chrono::milliseconds(900));
}

TEST_CASE("a node that ends while it takes a state leaves no part of it") {
  const test::TemporaryFolder folder;
  {
    Following node(folder.path());
    node.offer();
    node.give(node.questions.next(wire::BLOB_STATE, 0), two_pieces());
    node.questions.next(wire::BLOB_STATE, 1);
    REQUIRE(std::filesystem::exists(folder / "transfer/state-for-node1.part"));
  }
  CHECK(std::filesystem::is_empty(folder / "transfer"));
}

TEST_CASE("a part of a ledger is removed when no more of it comes, and a whole one is the monitor's") {
  const test::TemporaryFolder folder;
  const std::string file = folder / "transfer/ledger-for-node1.part";
  bool there = false;
  {
    Following node(folder.path());
    node.offer();
    node.give(node.questions.next(wire::BLOB_STATE, 0), "a state");
    const Questions::Question question = node.questions.next(wire::BLOB_LEDGER, 0);
    node.give(question, two_pieces());
    const Questions::Question rest = node.questions.next(wire::BLOB_LEDGER, 1);
    REQUIRE(std::filesystem::exists(file));
    SUBCASE("the giver has no more") {
      node.refuse(rest);
      const auto until = Clock::now() + kDeadline;
      while (std::filesystem::exists(file) && Clock::now() < until) std::this_thread::yield();
      REQUIRE_FALSE(std::filesystem::exists(file));
    }
    SUBCASE("the job ends") {}
    SUBCASE("it is whole") {
      node.give(rest, two_pieces());
      REQUIRE(node.handed_over.try_acquire_for(kDeadline));
      there = true;
    }
  }
  CHECK(std::filesystem::exists(file) == there);
}

TEST_CASE("a state that could not be written is taken anew when it is asked for again") {
  const test::TemporaryFolder folder;
  folder.write("transfer", "in the way");  // of the folder
  std::counting_semaphore<> asked{0};
  Questions answers;
  caf::actor_system_config config;
  caf::actor_system system{config};
  const JobContextPtr context = context_of(0, folder.path());
  const auto source = std::make_shared<source_actor>();
  const aggregator_actor aggregator = spawn_aggregator_stand_in(system, source, asked);
  const post_actor peer = spawn_peer(system, answers);
  const state_writer_actor writer = spawn_state_writer(system, {context, {}}, no_info());
  *source = spawn_source(system, {context, {}}, {{1, peer}}, aggregator, writer);
  const auto ask = [&] {
    wire::Envelope message = envelope(*context, {{}, kStep});
    message.mutable_fetch()->set_kind(wire::BLOB_STATE);
    caf::anon_send(*source, Post{1, share(std::move(message))});
  };
  ask();
  CHECK(asked.try_acquire_for(kDeadline));  // the writer has the state next, and cannot write it
  bool again = false;
  for (const auto until = Clock::now() + kDeadline; Clock::now() < until && !again;) {
    ask();
    again = asked.try_acquire_for(std::chrono::milliseconds(10));
  }
  CHECK(again);
  end_all(*source, writer, aggregator, peer);
}

TEST_CASE("whoever gives a state keeps the totals after it, however long it takes to install") {
  const test::TemporaryFolder folder;
  Transfer nodes(folder.path());
  caf::anon_send(*nodes.follower, scheduler::FollowFrom{{0}, kStep});
  REQUIRE(nodes.installs.states.try_acquire_for(kDeadline));
  for (int i = 0; i < 4; ++i) {  // for longer than a source keeps totals for those who ask for nothing
    make_clock_jump(std::chrono::seconds(6));
    nodes.questions.next(wire::BLOB_TOTAL, 0);
  }
  for (const int64_t step : {kStep, kStep + 1})
    caf::anon_send(*nodes.source, TotalKept{step, std::make_shared<const std::vector<std::byte>>(10)});
  caf::anon_send(nodes.member, Tick{});
  for (int totals = 0; totals < 2; ++totals) CHECK(nodes.installs.totals.try_acquire_for(kDeadline));
  while (const auto question = nodes.questions.next(Clock::now()))
    CHECK(question->envelope->fetch().kind() != wire::BLOB_STATE);
}

TEST_CASE("totals are kept, and questions answered, while the state before them is being written") {
  const test::TemporaryFolder folder;
  std::counting_semaphore<> may_write{0};
  Transfer nodes(folder.path(), &may_write);
  const Released released{may_write};
  caf::anon_send(*nodes.follower, scheduler::FollowFrom{{0}, kStep});
  REQUIRE(nodes.asked.try_acquire_for(kDeadline));
  nodes.questions.next(wire::BLOB_STATE, 0);
  nodes.answers.next(Clock::now() + kDeadline);
  for (int i = 0; i < 3; ++i) {  // for longer than a source keeps totals for those who ask for nothing
    make_clock_jump(std::chrono::seconds(12));
    nodes.questions.next(wire::BLOB_STATE, 0);
    nodes.answers.next(Clock::now() + kDeadline);
  }
  for (const int64_t step : {kStep, kStep + 1})
    caf::anon_send(*nodes.source, TotalKept{step, std::make_shared<const std::vector<std::byte>>(10)});
  may_write.release();
  REQUIRE(nodes.installs.states.try_acquire_for(kDeadline));
  caf::anon_send(nodes.member, Tick{});
  for (int totals = 0; totals < 2; ++totals) CHECK(nodes.installs.totals.try_acquire_for(kDeadline));
}

TEST_CASE("what one node's ledger lacks comes from the next one's") {
  const test::TemporaryFolder folder;
  Following node(folder.path());
  node.offer({0, 2});
  node.give(node.questions.next(wire::BLOB_STATE, 0), "a state");
  const Questions::Question first = node.questions.next(wire::BLOB_LEDGER, 0);
  CHECK(first.envelope->fetch().since() == 0);
  int64_t lacking = 0;
  SUBCASE("it has none") {
    node.refuse(first);
  }
  SUBCASE("it has a gap") {
    node.give(first, ledger_of({0, 1, 4}));
    REQUIRE(node.handed_over.try_acquire_for(kDeadline));
    lacking = 2;
  }
  const Questions::Question second = node.others.next(wire::BLOB_LEDGER, 0);
  CHECK(second.envelope->fetch().since() == lacking);
  node.give(second, ledger_of({0, 1, 2, 3, 4}), 2);
  REQUIRE(node.handed_over.try_acquire_for(kDeadline));
  CHECK(ledger_complete_until(node.ledger) == kStep);
}

TEST_CASE(
    "a node that has become a member while its state was installed still asks for the ledger before it") {
  const test::TemporaryFolder folder;
  Following node(folder.path());
  node.installs.slow = true;
  node.offer();
  node.give(node.questions.next(wire::BLOB_STATE, 0), "a state");
  REQUIRE(node.installs.states.try_acquire_for(kDeadline));
  caf::anon_send(node.follower, scheduler::BeginView{});
  caf::anon_send(node.member, Tick{});
  node.questions.next(wire::BLOB_LEDGER, 0);
}
