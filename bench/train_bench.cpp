// Training speed of one node: T workers take slots in turn and share the commit, on the engine that a node of
// `troupe train` has, its checks of weights and moments included; without actors and without a dataset. Full
// synthetic batches; prints one JSON line. See --help.
#include <array>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "actors/engines/cpu_engine.hpp"
#include "bench/timed_backend.hpp"
#include "bench/workload.hpp"
#include "kernels/base/random.hpp"
#include "kernels/cpu/backend.hpp"
#include "kernels/scratch.hpp"
#include "model/step.hpp"

namespace {

using namespace troupe;
using namespace troupe::bench;
using Clock = std::chrono::steady_clock;

struct Options {
  WorkloadOptions workload;
  std::string sum = "exact";
  int threads = int(std::thread::hardware_concurrency());
  int slots = 0;  // 0: as many as threads
  double seconds = 10;
};

TokenMatrix random_tokens(const Workload& w, int64_t rows, uint64_t key) {
  TokenMatrix tokens{
      int32_t(rows), int32_t(w.length), {}, std::vector<int32_t>(size_t(rows), int32_t(w.length))};
  for (uint64_t i = 0; i < uint64_t(rows * w.length); ++i)
    tokens.ids.push_back(int32_t(4 + mix64(key, i) % uint64_t(w.config.vocabulary - 4)));
  return tokens;
}

Batch synthetic_batch(const Workload& w, int64_t rows, uint64_t key) {
  Batch batch;
  if (w.config.family == model::Family::encoder_decoder) batch.source = random_tokens(w, rows, mix64(key, 1));
  batch.target_in = random_tokens(w, rows, mix64(key, 2));
  batch.target_out = random_tokens(w, rows, mix64(key, 3)).ids;
  batch.target_tokens = rows * w.length;
  return batch;
}

config::JobConfig job_of(const Options& options, const Workload& work) {
  config::JobConfig job;
  job.model = work.config;
  job.optimizer.schedule.peak = 1e-4;
  job.slots = options.slots;
  job.sum = options.sum == "float" ? config::SumKind::floating : config::SumKind::exact;
  return job;
}

std::unique_ptr<actors::TrainEngine> make_engine(const Options& options, const Workload& work,
                                                 std::unique_ptr<kernels::Backend> backend) {
  const config::JobConfig job = job_of(options, work);
  auto model = model::make_model(job.model);
  auto state = model::first_state(kernels::allocate_host, *model, uint64_t(job.seed));
  scheduler::SlotPlan plan;
  plan.training = uint32_t(options.slots);
  plan.steps = job.steps;
  return std::make_unique<actors::CpuEngine>(std::move(backend), job, plan, std::move(model),
                                             std::move(state), uint32_t(options.threads));
}

// What all workers do in turn, each its part of it.
enum Phase : size_t { kSlots, kChecks, kRounding, kUpdate, kPacking, kPhases };

// Mean milliseconds of a thread and step.
struct Profile {
  PartSeconds parts{};  // of the slots
  std::array<double, kPhases> phases{};
};

// What the workers of a node share. Every part of a step is done by all of them, with a barrier after it.
class Node {
 public:
  Node(const Options& options, const Workload& work)
      : options_(options), barrier_(options.threads), spent_(size_t(options.threads)) {
    auto backend = std::make_unique<TimedBackend>(kernels::make_cpu_backend());
    backend_ = backend.get();
    engine_ = make_engine(options, work, std::move(backend));
    for (int i = 0; i < options.slots; ++i)
      batches_.push_back(synthetic_batch(work, work.sentences / options.slots, mix64(7, uint64_t(i))));
  }

  // Until the time is over, and for three steps at least.
  void run() {
    std::vector<std::thread> threads;
    for (int t = 0; t < options_.threads; ++t) threads.emplace_back([this, t] { work(uint32_t(t)); });
    for (std::thread& thread : threads) thread.join();
  }

  const actors::TrainEngine& engine() const { return *engine_; }
  double step_seconds() const { return mean_but_first(steps_); }  // the first warms caches and primitives
  double commit_seconds() const { return mean_but_first(commits_); }
  const model::LossTotals& loss() const { return outcome_.training; }  // of the last step

  // Of the steps but the first, since the last call.
  Profile take_profile() {
    const double scale = 1e3 / double(steps_.size() - 1) / double(options_.threads);
    Profile profile;
    profile.parts = backend_->take();
    for (double& part : profile.parts) part *= scale;
    for (const auto& spent : spent_)
      for (size_t phase = 0; phase < kPhases; ++phase) profile.phases[phase] += spent[phase] * scale;
    return profile;
  }

 private:
  static double mean_but_first(const std::vector<double>& values) {
    double sum = 0;
    for (size_t i = 1; i < values.size(); ++i) sum += values[i];
    return sum / double(values.size() - 1);
  }
  static double since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  void work(uint32_t worker) {
    engine_->open_worker(worker);
    const auto start = Clock::now();
    while (running_) {
      const auto begin = Clock::now();
      const int64_t step = engine_->state().step;
      for (int slot; (slot = next_slot_.fetch_add(1)) < options_.slots;)
        engine_->run_slot(worker, step, uint32_t(slot), batches_[size_t(slot)]);
      const auto computed = Clock::now();
      spent_[worker][kSlots] += since(begin);
      share(worker, kChecks, [&] { return engine_->verify_work(); });
      share(worker, kRounding, [&] {
        engine_->require_sound();
        return engine_->measure_work(false);
      });
      share(worker, kUpdate, [&] { return engine_->apply_work(engine_->own_sum()); });
      share(worker, kPacking, [&] { return engine_->pack_work(); });
      alone(worker, [&] {
        outcome_ = engine_->finish_commit(engine_->own_sum());
        next_slot_ = 0;
        steps_.push_back(since(begin));
        commits_.push_back(since(computed));
        running_ = since(start) <= options_.seconds || steps_.size() < 3;
        if (steps_.size() == 1) {  // forget it
          backend_->take();
          for (auto& spent : spent_) spent.fill(0);
        }
      });
    }
  }

  // On one thread when all have come here; the others wait for its end.
  template <typename Body>
  void alone(uint32_t worker, Body&& body) {
    barrier_.arrive_and_wait();
    if (worker == 0) body();
    barrier_.arrive_and_wait();
  }

  template <typename MakeWork>
  void share(uint32_t worker, Phase phase, MakeWork&& make_work) {
    alone(worker, [&] { shared_ = make_work(); });
    const auto begin = Clock::now();
    shared_->run(engine_->stream(worker));
    spent_[worker][phase] += since(begin);
  }

  const Options& options_;
  TimedBackend* backend_ = nullptr;  // the engine's
  std::unique_ptr<actors::TrainEngine> engine_;
  std::vector<Batch> batches_;
  std::barrier<> barrier_;
  std::atomic<int> next_slot_{0};
  std::atomic<bool> running_{true};
  std::shared_ptr<actors::SharedWork> shared_;
  actors::StepOutcome outcome_;
  std::vector<double> steps_, commits_;
  std::vector<std::array<double, kPhases>> spent_;  // seconds of each worker
};

// What a thread does in a step, as a JSON object of milliseconds; together they are the step.
std::string json_of(const Profile& profile, double step_ms) {
  const auto part = [&](Part which) { return profile.parts[size_t(which)]; };
  const auto& phases = profile.phases;
  double timed = 0, busy = 0;
  for (const double each : profile.parts) timed += each;
  for (const double each : phases) busy += each;
  return fmt::format(
      "{{\"linear\": {:.2f}, \"attention\": {:.2f}, \"vocabulary\": {:.2f}, \"pointwise\": {:.2f}, "
      "\"folding\": {:.2f}, \"rounding\": {:.2f}, \"update\": {:.2f}, \"packing\": {:.2f}, \"waiting\": "
      "{:.2f}}}",
      part(Part::linear), part(Part::attention), part(Part::vocabulary), part(Part::pointwise),
      part(Part::folding) + phases[kSlots] - timed, phases[kRounding], phases[kChecks] + phases[kUpdate],
      phases[kPacking], step_ms - busy);
}

int run(const Options& options) {
  const Workload work = workload_of(options.workload);
  Node node(options, work);
  node.run();

  const model::Model& model = node.engine().model();
  const int64_t rows = work.sentences / options.slots;
  const double seconds = node.step_seconds();
  const double flops = flops_a_step(work, model.parameters());
  fmt::print(
      "{{\"system\": \"troupe\", \"model\": \"{}\", \"dtype\": \"{}\", \"mode\": \"{}\", \"threads\": {}, "
      "\"slots\": {}, \"tokens_per_s\": {:.1f}, \"step_ms\": {:.2f}, \"commit_ms\": {:.2f}, "
      "\"gflop_a_step\": {:.1f}, \"gflops\": {:.1f}, \"slot_mb\": {:.1f}, \"loss\": {:.4f}, "
      "\"profile_ms\": {}}}\n",
      options.workload.model, options.workload.dtype, options.sum, options.threads, options.slots,
      double(work.tokens()) / seconds, seconds * 1e3, node.commit_seconds() * 1e3, flops * 1e-9,
      flops * 1e-9 / seconds, double(model.arena_bytes(rows, rows * work.length, true)) * 1e-6,
      double(node.loss().loss_units) * model::LossTotals::kUnit / double(work.tokens()),
      json_of(node.take_profile(), seconds * 1e3));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Measures training speed on full synthetic batches", "bench_train");
  add_options(app, options.workload);
  app.add_option("--sum", options.sum)->check(CLI::IsMember({"exact", "float"}))->capture_default_str();
  app.add_option("--threads", options.threads)->check(CLI::Range(1, 256))->capture_default_str();
  app.add_option("--slots", options.slots, "0: as many as threads; divides the sentences of a step");
  app.add_option("--seconds", options.seconds)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (options.slots == 0) options.slots = options.threads;
  if (workload_of(options.workload).sentences % options.slots != 0) {
    fmt::print(stderr, "bench_train: --slots {} does not divide {} sentences\n", options.slots,
               workload_of(options.workload).sentences);
    return 2;
  }
  return run(options);
}
