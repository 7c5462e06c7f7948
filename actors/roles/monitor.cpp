#include <deque>
#include <filesystem>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include "actors/engines/train_engine.hpp"
#include "actors/guarded.hpp"
#include "actors/ledger.hpp"
#include "actors/roles/roles.hpp"
#include "actors/roles/train_log.hpp"
#include "actors/wire.hpp"
#include "data/dataset.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::actors {

namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kUnwrittenMax = 100'000;  // records of the ledger

struct monitor_state {
  monitor_state() = default;
  static inline const char* name = "monitor";
  using Self = monitor_actor::stateful_pointer<monitor_state>;

  RoleSetup setup;
  std::shared_ptr<const data::Dataset> dataset;
  std::shared_ptr<spdlog::logger> log;  // once this node has spoken
  std::optional<LedgerWriter> ledger;
  std::deque<LedgerRecord> unwritten;  // as when the disk is full
  std::string why_unwritten;           // empty: nobody has been told yet
  Clock::time_point write_again_at;
  model::LossTotals since;  // the last report
  int64_t steps_since = 0;
  std::shared_ptr<const StepOutcome> unreported;  // the newest of those
  Clock::time_point reported_at = Clock::now();
  Validated validated;
  size_t members = 1;

  void open_log() {
    if (!log && setup.context->speaks()) log = open_train_log(*setup.context);
  }

  // What nobody would look for in this node's own log.
  void tell(Self self, const std::string& what) {
    spdlog::warn("{}", what);
    if (log && setup.context->speaks()) log->warn("{}", what);
    self->send(setup.supervisor, Publish{notice(*setup.context, what)});
  }

  void begin(const scheduler::View& view) {
    open_log();
    members = view.members.size();
    if (log && setup.context->speaks())
      log->info("view {}: {} nodes from step {}", view.ballot.number, members, view.step);
  }

  void record(Self self, const StepReport& report) {
    const JobContext& context = *setup.context;
    const StepOutcome& outcome = *report.outcome;
    LedgerRecord line;
    line.step = outcome.plan.step;
    line.view = report.seal.fence.ballot;
    for (const auto& [rank, slots] : report.seal.contributions)
      line.computed_by[context.name_of(rank)] = slots;
    for (uint32_t slot = 0; slot < uint32_t(context.job.slots); ++slot)
      line.packs.push_back(dataset->slot_pack(uint64_t(context.job.seed), uint64_t(line.step), slot,
                                              uint32_t(context.job.slots)));
    line.target_tokens = outcome.plan.tokens;
    line.skipped = outcome.plan.skipped;
    line.committed_us = std::chrono::system_clock::now().time_since_epoch() / std::chrono::microseconds(1);
    line.chain = to_hex(report.chain.data(), report.chain.size());
    unwritten.push_back(std::move(line));
    write_ledger(self);
  }

  // What cannot be written now is written later: a full disk is no reason to stop.
  void write_ledger(Self self) {
    const bool late = unwritten.size() > 1;
    if (late && Clock::now() < write_again_at) return;
    try {
      if (!ledger)
        ledger.emplace(ledger_path(setup.context->out_folder, setup.context->node()), unwritten.front().step);
      for (; !unwritten.empty(); unwritten.pop_front()) ledger->append(unwritten.front());
      why_unwritten.clear();
      if (late) spdlog::info("the ledger is complete again");
    } catch (const std::exception& problem) {
      ledger.reset();
      write_again_at = Clock::now() + std::chrono::seconds(1);
      const bool told = !std::exchange(why_unwritten, problem.what()).empty();
      if (!told) tell(self, "the ledger waits: " + why_unwritten);
      if (unwritten.size() > kUnwrittenMax) throw;
    }
  }

  // Nothing is written, or due, after this unless the job goes on.
  void flush(Self self) {
    write_again_at = {};
    if (!unwritten.empty()) write_ledger(self);
    if (!unwritten.empty())
      tell(self, fmt::format("the ledger lacks its last {} steps, from step {} on: {}", unwritten.size(),
                             unwritten.front().step, why_unwritten));
    if (unreported) report(self);  // a job may end between two reports, and before the first
  }

  // What happened before this node took part.
  void take_ledger(const std::string& path) {
    ledger.reset();  // opened again with the next record
    try {
      merge_ledger(ledger_path(setup.context->out_folder, setup.context->node()), path);
    } catch (const std::exception& problem) {
      spdlog::warn("the ledger lacks what came before: {}", problem.what());
    }
    std::error_code none;
    std::filesystem::remove(path, none);
  }

  void on_validated(const Validated& result) {
    validated = result;
    if (log && setup.context->speaks())
      log->info("validation at step {}: loss {:.4f}, accuracy {:.2f} %{}", result.step, result.loss,
                100 * result.accuracy, result.best ? ", the best so far" : "");
  }

  void on_step(Self self, const std::shared_ptr<const StepOutcome>& committed) {
    const StepOutcome& outcome = *committed;
    since += outcome.training;
    ++steps_since;
    unreported = committed;
    const bool speaks = setup.context->speaks();
    if (outcome.plan.skipped && log && speaks)
      log->warn("step {} was skipped: {}", outcome.plan.step,
                outcome.plan.flags != 0 ? "a gradient was not finite or too large" : "no target token");
    const int64_t done = outcome.plan.step + 1;
    if (done % setup.context->job.report_every == 0 || done == setup.context->job.steps) report(self);
  }

  // REQUIRES a step that was not. All nodes count from the same steps on; one speaks.
  void report(Self self) {
    if (setup.context->speaks()) publish_report(self, *unreported);
    since = {};
    steps_since = 0;
    unreported.reset();
    reported_at = Clock::now();
  }

  void publish_report(Self self, const StepOutcome& outcome) {
    const JobContext& context = *setup.context;
    const auto now = Clock::now();
    const double seconds = std::max(1e-9, std::chrono::duration<double>(now - reported_at).count());
    const int64_t done = outcome.plan.step + 1;
    wire::Envelope message = envelope(context, {{}, done});
    wire::Report& r = *message.mutable_report();
    r.set_step(done);
    r.set_steps(context.job.steps);
    r.set_epoch(dataset->epoch_of_step(uint64_t(done), uint32_t(context.job.slots)));
    r.set_loss(since.mean_loss());
    r.set_learning_rate(outcome.plan.learning_rate);
    r.set_tokens_per_second(double(since.tokens) / seconds);
    r.set_nodes(uint32_t(members));
    r.set_seconds_left(double(context.job.steps - done) * seconds / double(steps_since));
    r.set_gradient_norm(outcome.plan.gradient_norm);
    r.set_skipped_steps(outcome.skipped);
    r.set_validation_loss(validated.loss);
    r.set_validation_step(validated.step);
    r.set_target_tokens(outcome.target_tokens);
    if (log)
      log->info("step {} epoch {:.2f} loss {:.4f} learning rate {:.3g} norm {:.3g} tokens/s {:.0f}", done,
                r.epoch(), r.loss(), r.learning_rate(), r.gradient_norm(), r.tokens_per_second());
    self->send(setup.supervisor, Publish{share(std::move(message))});
  }
};
static_assert(!std::is_aggregate_v<monitor_state>);

monitor_actor::behavior_type monitor(monitor_actor::stateful_pointer<monitor_state> self, RoleSetup setup,
                                     std::shared_ptr<const data::Dataset> dataset) {
  use_exception_handler(self);
  self->state.setup = std::move(setup);
  self->state.dataset = std::move(dataset);
  const supervisor_actor supervisor = self->state.setup.supervisor;
  return {
      [self, supervisor](const StepReport& step) {
        guarded(self, supervisor, [&] {
          self->state.record(self, step);
          self->state.on_step(self, step.outcome);
        });
      },
      [self](const Validated& result) { self->state.on_validated(result); },
      [self](const LedgerOfOthers& from) { self->state.take_ledger(from.path); },
      [self, supervisor](const scheduler::BeginView& begins) {
        guarded(self, supervisor, [&] { self->state.begin(begins.view); });
      },
      [self, supervisor](const FlushReports&) {
        return guarded_answer<ReportsFlushed>(self, supervisor, [&] {
          self->state.flush(self);
          return ReportsFlushed{};
        });
      },
  };
}

}  // namespace

monitor_actor spawn_monitor(caf::actor_system& system, RoleSetup setup,
                            std::shared_ptr<const data::Dataset> dataset) {
  return system.spawn<caf::detached>(monitor, std::move(setup), std::move(dataset));
}

}  // namespace troupe::actors
