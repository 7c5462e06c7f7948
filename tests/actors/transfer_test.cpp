// What a node gives to one that follows, and what it takes when it follows itself, by stand-ins for the rest:
// disks that cannot be written to, and what is left in OUT/transfer.
#include <chrono>
#include <deque>
#include <filesystem>
#include <mutex>
#include <optional>
#include <semaphore>
#include <thread>

#include <doctest/doctest.h>

#include "actors/wire.hpp"
#include "comm/messages.hpp"
#include "kernels/base/hash.hpp"
#include "model/state.hpp"
#include "support.hpp"
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

// Every state that it is given is that of kStep.
member_actor spawn_member_stand_in(caf::actor_system& system) {
  return system.spawn([]() -> member_actor::behavior_type {
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
            [](const InstallState&) {
              return Installed{true, false, kStep, ""};
            },
            [](const InstallTotal&) { return Installed{}; },
            [](const Tick&) {}};
  });
}

monitor_actor spawn_monitor_stand_in(caf::actor_system& system, std::counting_semaphore<>& handed_over) {
  return system.spawn([&handed_over]() -> monitor_actor::behavior_type {
    return {[](const StepReport&) {}, [](const Validated&) {}, [](const scheduler::BeginView&) {},
            [&handed_over](const LedgerOfOthers&) { handed_over.release(); },
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
  auto context = std::make_shared<JobContext>(*test_context(2, rank, 100, 4));
  context->out_folder = out;
  return context;
}

template <class... Handles>
void end_all(const Handles&... handles) {
  (caf::anon_send_exit(handles, caf::exit_reason::user_shutdown), ...);
}

// node1, which lacks the state. The test is node0, which has it, and leads. At the end of the scope it has
// ended.
struct Following {
  explicit Following(const std::string& out) : context(context_of(1, out)) {
    follower = spawn_follower(system, {context, {}}, {{0, peer}}, member, monitor);
  }
  ~Following() { end_all(follower, peer, member, monitor); }

  void offer() const { caf::anon_send(follower, scheduler::FollowFrom{{0}, kStep}); }

  void give(const Questions::Question& question, const std::string& whole) const {
    wire::Envelope message = envelope(*context, {{}, question.envelope->fence().step()});
    const wire::Fetch& wanted = question.envelope->fetch();
    wire::Piece& piece = *message.mutable_piece();
    piece.set_kind(wanted.kind());
    piece.set_index(wanted.index());
    piece.set_blob_bytes(whole.size());
    piece.set_data(whole.substr(wanted.index() * wire::kPieceBytes, wire::kPieceBytes));
    piece.set_checksum(checksum64(piece.data().data(), piece.data().size()));
    caf::anon_send(follower, Post{0, share(std::move(message))});
  }
  void refuse(const Questions::Question& question) const {
    wire::Envelope message = envelope(*context, {{}, question.envelope->fence().step()});
    message.mutable_piece()->set_kind(question.envelope->fetch().kind());
    message.mutable_piece()->set_absent("it is not here any more");
    caf::anon_send(follower, Post{0, share(std::move(message))});
  }

  Questions questions;  // outlives the actors
  std::counting_semaphore<> handed_over{0};
  caf::actor_system_config config;
  caf::actor_system system{config};
  JobContextPtr context;
  post_actor peer = spawn_peer(system, questions);
  member_actor member = spawn_member_stand_in(system);
  monitor_actor monitor = spawn_monitor_stand_in(system, handed_over);
  follower_actor follower;
};

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
  *source = spawn_source(system, {context, {}}, {{1, peer}}, aggregator, nullptr);
  const auto ask = [&] {
    wire::Envelope message = envelope(*context, {{}, kStep});
    message.mutable_fetch()->set_kind(wire::BLOB_STATE);
    caf::anon_send(*source, Post{1, share(std::move(message))});
  };
  ask();
  CHECK(asked.try_acquire_for(kDeadline));  // it has the state next, which it cannot write
  ask();
  CHECK(asked.try_acquire_for(kDeadline));
  end_all(*source, aggregator, peer);
}
