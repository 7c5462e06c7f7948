#include <filesystem>
#include <fstream>
#include <optional>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include "actors/clock.hpp"
#include "actors/engines/engine_setup.hpp"
#include "actors/guarded.hpp"
#include "actors/ledger.hpp"
#include "actors/roles/kept_totals.hpp"
#include "actors/roles/roles.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kTick{250};
constexpr scheduler::Microseconds kInterestUs =
    20'000'000;                                // after the last question nobody follows any more
constexpr int64_t kBehindMax = 64;             // a state that is older is taken anew for the next who asks
constexpr std::chrono::seconds kSayAgain{60};  // to clients, what goes wrong

struct source_state {
  source_state() = default;
  ~source_state() { forget_state(); }
  source_state(const source_state&) = delete;
  source_state& operator=(const source_state&) = delete;
  static inline const char* name = "source";
  using Self = source_actor::stateful_pointer<source_state>;
  using Clock = std::chrono::steady_clock;

  struct Question {
    scheduler::Rank from = 0;
    wire::BlobKind kind = wire::BLOB_UNSPECIFIED;
    int64_t step = 0;
    uint32_t index = 0;
    int64_t since = 0;  // of a ledger
  };
  struct History {  // the lines of since <= step < end
    int64_t since = 0, end = 0;
    LedgerRange lines;
  };

  RoleSetup setup;
  std::map<scheduler::Rank, post_actor> followers;
  aggregator_actor aggregator;
  state_writer_actor writer;
  std::vector<Question> open;  // bounded: one for each follower, kind, step and piece
  int64_t state_step = -1;     // of the file
  int64_t writing_step = -1;   // of the state that is being written
  int64_t state_asked = -1;    // of the aggregator
  std::filesystem::path state_path;
  std::optional<KeptTotals> totals;
  std::map<scheduler::Rank, History> histories;  // what each has asked for last
  int64_t newest_step = -1;                      // that the state is known to have reached
  bool keeping = false;
  scheduler::Microseconds asked_us = 0;
  std::string said;  // to clients, of what went wrong
  Clock::time_point said_at{};

  void on_fetch(Self self, const Post& post) {
    const wire::Envelope& message = *post.envelope;
    const Question question{post.from, message.fetch().kind(), message.fence().step(),
                            message.fetch().index(), message.fetch().since()};
    asked_us = now_us();
    if (!keeping && question.kind != wire::BLOB_LEDGER) {
      self->send(aggregator, KeepTotals{true});
      keeping = true;
    }
    if (answer(self, question)) return;
    give(self, question, {}, 0);  // not yet
    std::erase_if(open, [&](const Question& old) {
      return old.from == question.from && old.kind == question.kind && old.index == question.index;
    });
    open.push_back(question);
    if (question.kind != wire::BLOB_STATE || question.step == state_asked) return;
    state_asked = question.step;
    self->send(aggregator, StateWanted{question.step});
  }

  // False when it has to wait.
  bool answer(Self self, const Question& question) {
    if (question.kind == wire::BLOB_LEDGER) return answer_with_history(self, question);
    if (question.kind == wire::BLOB_STATE) {
      if (question.step == writing_step) return false;
      if (question.step == state_step) return give(self, question, read_state(question.index), state_bytes());
      if (offered_step() >= 0) return refuse(self, question, "another step's state is ready");
      if (question.step < newest_step) return refuse(self, question, "the state is past that step");
      return false;
    }
    if (auto part = totals->read(question.step, question.index * wire::kPieceBytes, wire::kPieceBytes))
      return give(self, question, std::move(part->data), part->whole_bytes);
    if (question.step < newest_step) return refuse(self, question, "that total is not kept");
    return false;
  }

  bool answer_with_history(Self self, const Question& question) {
    auto known = histories.find(question.from);
    if (known == histories.end() || known->second.since != question.since ||
        known->second.end != question.step) {
      auto found = LedgerRange::find(ledger_path(setup.context->out_folder, setup.context->node()),
                                     question.since, question.step);
      if (!found) return false;  // it is a little behind the state
      if (found->bytes() == 0) return refuse(self, question, "the ledger here has nothing of those steps");
      History history{question.since, question.step, std::move(*found)};
      known = histories.insert_or_assign(question.from, std::move(history)).first;
    }
    LedgerRange& lines = known->second.lines;
    return give(self, question, lines.read(question.index * wire::kPieceBytes, wire::kPieceBytes),
                lines.bytes());
  }

  bool give(Self self, const Question& question, std::string data, uint64_t blob_bytes) {
    wire::Envelope message = envelope(*setup.context, {{}, question.step});
    wire::Piece& piece = *message.mutable_piece();
    piece.set_kind(question.kind);
    piece.set_index(question.index);
    piece.set_blob_bytes(blob_bytes);
    piece.set_checksum(checksum64(data.data(), data.size()));
    piece.set_data(std::move(data));
    piece.set_sender_step(newest_step);
    self->send(followers.at(question.from), Post{setup.context->rank(), share(std::move(message))});
    return true;
  }

  bool refuse(Self self, const Question& question, const std::string& why) {
    wire::Envelope message = envelope(*setup.context, {{}, question.step});
    wire::Piece& piece = *message.mutable_piece();
    piece.set_kind(question.kind);
    piece.set_index(question.index);
    piece.set_absent(why);
    piece.set_sender_step(newest_step);
    piece.set_offered_step(offered_step());
    self->send(followers.at(question.from), Post{setup.context->rank(), share(std::move(message))});
    return true;
  }

  void answer_open(Self self) {
    std::erase_if(open, [&](const Question& question) { return answer(self, question); });
  }

  // --- x(step) ---

  void on_state(Self self, const StateTaken& taken) {
    newest_step = std::max(newest_step, taken.step);
    if (taken.state && writing_step < 0) write(self, taken);
    answer_open(self);
  }
  // Meanwhile totals come, and questions.
  void write(Self self, const StateTaken& taken) {
    writing_step = taken.step;
    state_step = -1;
    self->request(writer, kWorkPatience, WriteState{taken.state})
        .then([this, self](const StateWritten& written) { on_written(self, written); },
              [this](const caf::error&) { writing_step = -1; });
  }
  // On a full disk it is tried again with the next question for a state: who was told "not yet" asks once in
  // a while, and waits for more steps each time that it was refused.
  void on_written(Self self, const StateWritten& written) {
    if (written.step != writing_step) return;  // nobody wants it any more
    writing_step = -1;
    if (written.problem.empty()) {
      state_step = written.step;
      spdlog::info("offers the state of step {} to who follows", state_step);
    } else {
      state_asked = -1;
      say_problem(self, written.problem);
    }
    answer_open(self);
  }
  // Two who follow share one state: else each would make the other's void.
  int64_t offered_step() const {
    if (writing_step >= 0) return writing_step;
    const bool followed = totals->empty() ? state_step == newest_step : totals->first() <= state_step;
    return state_step >= 0 && followed && newest_step - state_step <= kBehindMax ? state_step : -1;
  }
  uint64_t state_bytes() const {
    std::error_code none;
    const auto bytes = std::filesystem::file_size(state_path, none);
    return none ? 0 : bytes;
  }
  std::string read_state(uint32_t index) const {
    std::ifstream in(state_path, std::ios::binary);
    in.seekg(std::streamoff(index) * std::streamoff(wire::kPieceBytes));
    std::string data(wire::kPieceBytes, '\0');
    in.read(data.data(), std::streamsize(data.size()));
    data.resize(size_t(std::max<std::streamsize>(0, in.gcount())));
    return data;
  }
  void forget_state() {
    std::error_code none;
    if (state_step >= 0) std::filesystem::remove(state_path, none);
    state_step = state_asked = writing_step = -1;
  }

  // --- every R after it ---

  void on_total(Self self, const TotalKept& kept) {
    newest_step = std::max(newest_step, kept.step + 1);
    if (!keeping) return;
    const auto began_us = now_us();
    totals->keep(kept.step, kept.bytes);
    asked_us += now_us() - began_us;  // nothing could be heard meanwhile
    answer_open(self);
  }

  // To have nothing to give is no failure of the job: who follows asks somebody else.
  void say_problem(Self self, const std::string& problem) {
    spdlog::warn("cannot give the state to a node that follows: {}", problem);
    if (problem == said && Clock::now() - said_at < kSayAgain) return;
    said = problem;
    said_at = Clock::now();
    self->send(setup.supervisor,
               Publish{notice(*setup.context, "cannot give the state to a node that follows: " + problem)});
  }

  void tick(Self self) {
    answer_open(self);  // the ledger says nothing when it grows
    if (now_us() - asked_us < kInterestUs) return;
    open.clear();
    histories.clear();
    if (!keeping) return;
    keeping = false;
    self->send(aggregator, KeepTotals{false});
    totals->clear();
    forget_state();
  }
};
static_assert(!std::is_aggregate_v<source_state>);

source_actor::behavior_type source(source_actor::stateful_pointer<source_state> self, RoleSetup setup,
                                   std::map<scheduler::Rank, post_actor> followers,
                                   aggregator_actor aggregator, state_writer_actor writer) {
  use_exception_handler(self);
  const std::filesystem::path path = offered_state_path(*setup.context);
  self->state.state_path = path;
  self->state.totals.emplace(KeptTotals::Limits{}, offered_totals_path(*setup.context));
  self->state.setup = std::move(setup);
  self->state.followers = std::move(followers);
  self->state.aggregator = std::move(aggregator);
  self->state.writer = std::move(writer);
  self->delayed_send(self, kTick, Tick{});
  const auto try_to = [self](const auto& run) {
    try {
      run();
    } catch (const std::exception& problem) {
      self->state.say_problem(self, problem.what());
    }
  };
  return {
      [self, try_to](const Post& post) {
        if (!post.envelope->has_fetch() || !self->state.followers.contains(post.from) ||
            !same_job(*self->state.setup.context, *post.envelope))
          return;
        try_to([&] { self->state.on_fetch(self, post); });
      },
      [self, try_to](const StateTaken& taken) { try_to([&] { self->state.on_state(self, taken); }); },
      [self, try_to](const TotalKept& kept) { try_to([&] { self->state.on_total(self, kept); }); },
      [self, try_to](Tick) {
        try_to([&] { self->state.tick(self); });
        self->delayed_send(self, kTick, Tick{});
      },
  };
}

}  // namespace

std::filesystem::path offered_totals_path(const JobContext& context) {
  return offered_state_path(context).parent_path() / fmt::format("totals-of-{}", context.node());
}

source_actor spawn_source(caf::actor_system& system, RoleSetup setup,
                          std::map<scheduler::Rank, post_actor> followers, aggregator_actor aggregator,
                          state_writer_actor writer) {
  return system.spawn<caf::detached>(source, std::move(setup), std::move(followers), std::move(aggregator),
                                     std::move(writer));
}

}  // namespace troupe::actors
