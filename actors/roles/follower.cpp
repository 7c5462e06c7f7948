#include <algorithm>
#include <filesystem>
#include <limits>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include "actors/clock.hpp"
#include "actors/guarded.hpp"
#include "actors/ledger.hpp"
#include "actors/roles/blob_assembly.hpp"
#include "actors/roles/roles.hpp"
#include "actors/wire.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kTick{50};
// Without a word of anyone who is still linked: a large state takes its giver long to write.
constexpr scheduler::Microseconds kPatienceUs = 60'000'000;
constexpr size_t kGiversMax = 3;  // of one state
// How often givers are asked for something while nothing is due: they keep totals for 20 s after a question.
constexpr scheduler::Microseconds kRemindUs = 5'000'000;
constexpr scheduler::Microseconds kHistoryUs =
    2'000'000;  // that a whole state waits for the ledger before it
// After an attempt that came to nothing, as on a full disk; doubles with each before this node is a member.
constexpr scheduler::Microseconds kPauseUs = 1'000'000, kPauseMaxUs = 60'000'000;

struct follower_state {
  follower_state() = default;
  ~follower_state() {
    if (!setup.context) return;  // it has not begun
    end_history();
    remove("state");
  }
  follower_state(const follower_state&) = delete;
  follower_state& operator=(const follower_state&) = delete;
  static inline const char* name = "follower";
  using Self = follower_actor::stateful_pointer<follower_state>;

  RoleSetup setup;
  std::map<scheduler::Rank, post_actor> peers;
  member_actor member;
  monitor_actor monitor;
  std::vector<scheduler::Rank> sources;  // who has the state, as far as the leader knows
  std::vector<scheduler::Rank> chosen;   // of whom it is taken; none: this node does not follow
  wire::BlobKind kind = wire::BLOB_UNSPECIFIED;
  int64_t step = -1;  // of the blob
  BlobAssembly blob;
  int64_t history_since = 0, history_step = 0;
  BlobAssembly history;  // the ledger of the steps before the state that this node's own lacks
  std::vector<scheduler::Rank> history_sources;  // who has not been asked for it since the state came
  bool merging = false;                          // the monitor adds what came to this node's own
  scheduler::Microseconds history_heard_us = 0;  // a piece of it
  scheduler::Microseconds install_by_us = 0;     // the state, with or without it
  int64_t leader_step = 0;
  int64_t end_step = std::numeric_limits<int64_t>::max();  // the job's last, as far as is known
  int64_t another_step = -1;                               // to ask for when nobody has this one
  int refusals = 0;                                        // in a row
  std::string why_not;                                     // the last of them
  bool installing = false;
  std::shared_ptr<const std::vector<std::byte>> ready;  // a whole total
  scheduler::Microseconds heard_us = 0;
  scheduler::Microseconds asked_us = 0;  // for a piece of a state or a total
  scheduler::Microseconds pause_us = 0, rests_until_us = 0;

  std::filesystem::path path(const char* what) const {
    return std::filesystem::path(setup.context->out_folder) / "transfer" /
           fmt::format("{}-for-{}.part", what, setup.context->node());
  }

  void follow(Self self, const scheduler::FollowFrom& from) {
    sources = from.sources;
    std::erase(sources, setup.context->rank());
    leader_step = from.step;
    if (chosen.empty() && !sources.empty() && now_us() >= rests_until_us) begin(self);
  }

  // With the state of some sources as it is now; if they are past that step when they hear of it, with a
  // later one.
  void begin(Self self) {
    std::vector<scheduler::Rank> all = sources;
    std::rotate(all.begin(), all.begin() + std::ptrdiff_t(size_t(now_us() / 1000) % all.size()), all.end());
    all.resize(std::min(all.size(), kGiversMax));
    chosen = std::move(all);
    heard_us = now_us();
    std::filesystem::create_directories(path("state").parent_path());
    std::string names;
    for (scheduler::Rank rank : chosen) names += (names.empty() ? "" : ", ") + setup.context->name_of(rank);
    spdlog::info("takes the state from {}", names);
    refusals = 0;
    want_state(self, leader_step);
  }

  void want_state(Self self, int64_t wanted) {
    kind = wire::BLOB_STATE;
    step = std::min({wanted, setup.context->job.steps, end_step});
    another_step = -1;
    blob.begin(chosen, path("state"));
    ask(self);
  }
  // Nobody will come to a later step.
  void end_at(Self self, int64_t last) {
    end_step = last;
    if (kind == wire::BLOB_STATE && !installing && step > end_step && !chosen.empty()) want_state(self, last);
  }
  // Every R is the same whoever gives it, and large: one gives it.
  void want_total(Self self, int64_t wanted) {
    kind = wire::BLOB_TOTAL;
    step = wanted;
    if (chosen.empty()) return rest(self, why_not);
    blob.begin({chosen.front()});
    ask(self);
  }
  // Each node's ledger has notes of its own, so it comes from one; where that has gaps too, what is left
  // comes from the next. Each is asked once for every state.
  void want_history(Self self) {
    end_history();
    if (merging) return;  // then it is looked at again
    history_since = ledger_complete_until(ledger_path(setup.context->out_folder, setup.context->node()));
    if (history_since >= history_step) return;
    if (history_sources.empty())
      return spdlog::warn("the ledger lacks step {}, which no other node has given", history_since);
    history.begin({history_sources.front()}, path("ledger"));
    history_sources.erase(history_sources.begin());
    history_heard_us = now_us();
    ask(self);
  }
  // Before it is whole; then the file is the monitor's.
  void end_history() {
    if (history.wanted()) remove("ledger");
    history.end();
  }

  void lose_history(const Error& problem) {
    spdlog::warn("the ledger lacks step {}: {}", history_since, problem.what());
    end_history();
  }

  void ask(Self self) {
    if (!installing) ask(self, blob, kind, step);
    ask(self, history, wire::BLOB_LEDGER, history_step);
    remind(self);
  }
  void ask(Self self, BlobAssembly& what, wire::BlobKind its_kind, int64_t its_step) {
    for (const BlobAssembly::Question& question : what.due(now_us())) put(self, question, its_kind, its_step);
  }
  void put(Self self, const BlobAssembly::Question& question, wire::BlobKind its_kind, int64_t its_step) {
    wire::Envelope message = envelope(*setup.context, {{}, its_step});
    message.mutable_fetch()->set_kind(its_kind);
    message.mutable_fetch()->set_index(question.index);
    if (its_kind == wire::BLOB_LEDGER)
      message.mutable_fetch()->set_since(history_since);
    else
      asked_us = now_us();
    self->send(peers.at(question.giver), Post{setup.context->rank(), share(std::move(message))});
  }

  // What has come whole is being installed, or waits until the member has time for that: both may take long.
  // The answers are of no use yet.
  void remind(Self self) {
    if (chosen.empty() || !blob.whole() || now_us() - asked_us < kRemindUs) return;
    const int64_t next = kind == wire::BLOB_TOTAL ? step + 1 : step;
    for (const scheduler::Rank giver : chosen) put(self, {giver, 0}, wire::BLOB_TOTAL, next);
  }

  void on_piece(Self self, scheduler::Rank from, int64_t its_step, const wire::Piece& piece) {
    const bool of_history = piece.kind() == wire::BLOB_LEDGER;
    BlobAssembly& what = of_history ? history : blob;
    const bool fits = of_history ? its_step == history_step : piece.kind() == kind && its_step == step;
    if (!fits || !what.has_giver(from) || (installing && !of_history)) return;
    heard_us = now_us();
    what.hear(from, heard_us);
    if (!piece.absent().empty()) return of_history ? want_history(self) : refused(self, from, piece);
    if (piece.blob_bytes() == 0) return;  // not yet
    if (of_history) history_heard_us = heard_us;
    if (!what.take(from, piece) || !what.whole()) return ask(self);
    if (of_history) return hand_over_history(self);
    if (kind == wire::BLOB_STATE) begin_history(self);
    install_if_ready(self);
  }

  void refused(Self self, scheduler::Rank from, const wire::Piece& piece) {
    why_not = fmt::format("{}: {}", setup.context->name_of(from), piece.absent());
    if (piece.offered_step() >= 0) another_step = piece.offered_step();
    leader_step = std::max(leader_step, piece.sender_step());
    without(self, from);
  }

  void without(Self self, scheduler::Rank gone) {
    blob.drop_giver(gone);
    if (blob.wanted() || installing) return;
    if (kind == wire::BLOB_TOTAL) {
      std::erase(chosen, gone);
      return want_total(self, step);
    }
    const int64_t later = leader_step + (int64_t{1} << std::min(refusals++, 12)) - 1;
    want_state(self, another_step >= 0 ? another_step : later);
  }

  void on_gone(Self self, scheduler::Rank gone) {
    std::erase(sources, gone);
    std::erase(history_sources, gone);
    if (history.has_giver(gone)) want_history(self);
    if (std::erase(chosen, gone) == 0) return;
    if (chosen.empty() && !installing) return stop();
    if (blob.has_giver(gone)) without(self, gone);
  }

  // The lines before the state come first, so that who takes part has the whole story even where all others
  // are gone at once; but nobody waits long for them.
  void begin_history(Self self) {
    history_step = step;
    history_sources = sources;
    install_by_us = now_us() + kHistoryUs;
    want_history(self);
  }
  void install_if_ready(Self self) {
    if (chosen.empty() || installing || !blob.whole()) return;
    const bool history_comes = history.wanted() || merging;
    if (kind == wire::BLOB_STATE && history_comes && now_us() < install_by_us) return;
    install(self);
  }

  void install(Self self) {
    installing = true;
    const auto done = [this, self](const Installed& installed) { on_installed(self, installed); };
    const auto silent = [this](const caf::error&) { stop(); };
    if (kind == wire::BLOB_STATE) {
      self->request(member, kWorkPatience, InstallState{path("state").string()}).then(done, silent);
    } else {
      if (!ready) ready = std::make_shared<const std::vector<std::byte>>(blob.take_bytes());
      self->request(member, kWorkPatience, InstallTotal{ready}).then(done, silent);
    }
  }

  void on_installed(Self self, const Installed& installed) {
    installing = false;
    heard_us = now_us();  // nothing could be heard meanwhile
    const bool right = installed.done && installed.step == step + (kind == wire::BLOB_TOTAL ? 1 : 0);
    if (right && kind == wire::BLOB_STATE) remove("state");
    if (chosen.empty()) return stop();  // a member by now, or nobody is left to follow
    if (installed.busy) return;         // tried again
    if (!right) return rest(self, "the state is not what it should be");
    ready.reset();
    want_total(self, installed.step);
  }

  // The monitor answers in order: when it has added what came to the ledger.
  void hand_over_history(Self self) {
    history.end();
    merging = true;
    self->send(monitor, LedgerOfOthers{path("ledger").string()});
    self->request(monitor, kWorkPatience, FlushReports{})
        .then(
            [this, self](const ReportsFlushed&) {
              merging = false;
              want_history(self);
              install_if_ready(self);
            },
            [this](const caf::error&) { merging = false; });
  }

  void remove(const char* what) const {
    std::error_code none;
    std::filesystem::remove(path(what), none);
  }

  // The ledger may still come.
  void stop() {
    chosen.clear();
    ready.reset();
    kind = wire::BLOB_UNSPECIFIED;
    blob.end();
    installing = false;
    remove("state");
  }

  // Tried again, with the state as it is then, at the leader's first word after a pause.
  void rest(Self self, const std::string& why) {
    stop();
    if (now_us() < rests_until_us) return;
    pause_us = std::clamp(2 * pause_us, kPauseUs, kPauseMaxUs);
    rests_until_us = now_us() + pause_us;
    const std::string what =
        fmt::format("cannot catch up with the others: {}; next try in {} s", why, pause_us / 1'000'000);
    spdlog::warn("{}", what);
    self->send(setup.supervisor, Publish{notice(*setup.context, what)});
  }

  void tick(Self self) {
    if (!chosen.empty() && !installing && now_us() - heard_us > kPatienceUs)
      rest(self, "nobody who has the state has answered for a minute");
    install_if_ready(self);
    const bool others_have_it = history.wanted() && !history_sources.empty();
    if (others_have_it && now_us() - history_heard_us > kPatienceUs) want_history(self);
    ask(self);
  }
};
static_assert(!std::is_aggregate_v<follower_state>);

follower_actor::behavior_type follower(follower_actor::stateful_pointer<follower_state> self, RoleSetup setup,
                                       std::map<scheduler::Rank, post_actor> sources, member_actor member,
                                       monitor_actor monitor) {
  use_exception_handler(self);
  self->state.setup = std::move(setup);
  self->state.peers = std::move(sources);
  self->state.member = std::move(member);
  self->state.monitor = std::move(monitor);
  self->delayed_send(self, kTick, Tick{});
  const supervisor_actor supervisor = self->state.setup.supervisor;
  return {
      [self, supervisor](const Post& post) {
        if (!post.envelope->has_piece() || !same_job(*self->state.setup.context, *post.envelope)) return;
        guarded(self, supervisor, [&] {
          try {
            self->state.on_piece(self, post.from, post.envelope->fence().step(), post.envelope->piece());
          } catch (const Error& problem) {  // a file cannot be written
            if (post.envelope->piece().kind() == wire::BLOB_LEDGER) return self->state.lose_history(problem);
            self->state.rest(self, problem.what());
          }
        });
      },
      [self, supervisor](const scheduler::FollowFrom& from) {
        guarded(self, supervisor, [&] { self->state.follow(self, from); });
      },
      [self](const scheduler::BeginView&) {
        self->state.chosen.clear();
        self->state.pause_us = 0;
        if (!self->state.installing) self->state.stop();
      },
      [self, supervisor](const PeerUnlinked& gone) {
        guarded(self, supervisor, [&] { self->state.on_gone(self, gone.peer); });
      },
      [self, supervisor](const StepsDone& done) {
        guarded(self, supervisor, [&] { self->state.end_at(self, done.step); });
      },
      [self, supervisor](Tick) {
        guarded(self, supervisor, [&] { self->state.tick(self); });
        self->delayed_send(self, kTick, Tick{});
      },
  };
}

}  // namespace

follower_actor spawn_follower(caf::actor_system& system, RoleSetup setup,
                              std::map<scheduler::Rank, post_actor> sources, member_actor member,
                              monitor_actor monitor) {
  return system.spawn<caf::detached>(follower, std::move(setup), std::move(sources), std::move(member),
                                     std::move(monitor));
}

}  // namespace troupe::actors
