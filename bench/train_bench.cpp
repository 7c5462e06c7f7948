// Training speed of one node as its trainers work: T threads take slots in turn, fold their gradients into
// one accumulator and share the commit. Full synthetic batches; prints one JSON line. See --help.
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "kernels/accumulator.hpp"
#include "kernels/base/random.hpp"
#include "kernels/cpu/backend.hpp"
#include "model/optimizer.hpp"
#include "model/step.hpp"
#include "workload.hpp"

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

// One node's state and the two kinds of accumulator; workers share it and meet at the barrier.
struct Node {
  Node(const Options& o, const Workload& w, kernels::Backend& b, model::Model& m)
      : options(o),
        work(w),
        backend(b),
        model(m),
        exact(m.parameters().layout()),
        floats(o.sum == "float" ? m.parameters().layout() : kernels::BlockLayout{}),
        measures(m.parameters().layout()),
        barrier(o.threads) {
    total.resize(m.parameters().layout());
    optimizer.schedule.peak = 1e-4;
    for (int i = 0; i < o.slots; ++i)
      batches.push_back(synthetic_batch(w, w.sentences / o.slots, mix64(7, uint64_t(i))));
  }

  const Options& options;
  const Workload& work;
  kernels::Backend& backend;
  model::Model& model;
  kernels::ExactAccumulator exact;
  kernels::FloatAccumulator floats;
  kernels::RoundedTotal total;
  model::CommitMeasures measures;
  model::OptimizerConfig optimizer;
  model::TrainState state;
  model::StepPlan plan;
  std::vector<Batch> batches;
  std::barrier<> barrier;
  std::atomic<int64_t> next{0};
  std::atomic<bool> running{true};
  std::atomic<int64_t> loss_units{0};
};

// Takes items [0, count) in turn with the other threads, then waits for them all.
template <typename Work>
void share(Node& node, int64_t count, Work&& work) {
  for (int64_t item; (item = node.next.fetch_add(1)) < count;) work(item);
  node.barrier.arrive_and_wait();
}

// What one thread of the node does in a step's barrier: `body` on one thread while the others wait.
template <typename Body>
void alone(Node& node, int thread, Body&& body) {
  if (thread == 0) {
    node.next = 0;
    body();
  }
  node.barrier.arrive_and_wait();
}

void compute_slot(Node& node, kernels::Stream& stream, kernels::Arena& arena, int64_t slot) {
  const model::SlotKey key{1, node.state.step, uint32_t(slot)};
  const float smoothing = node.optimizer.label_smoothing;
  const Batch& batch = node.batches[size_t(slot)];
  kernels::LossSums sums;
  if (node.options.sum == "float") {
    kernels::FloatSink sink(node.floats);
    sums = node.model.train_slot(stream, arena, node.state.view(), batch, key, smoothing, sink);
  } else {
    kernels::ExactSink sink(node.exact, {kernels::kFullBits, node.options.slots, 0});
    sums = node.model.train_slot(stream, arena, node.state.view(), batch, key, smoothing, sink);
  }
  model::LossTotals totals;
  totals.add(sums);
  node.loss_units += totals.loss_units;
}

void round_range(Node& node, kernels::Stream& stream, int64_t range) {
  const auto& layout = node.model.parameters().layout();
  const int64_t begin = range * model::kRangeBlocks,
                end = std::min(begin + model::kRangeBlocks, layout.blocks());
  const size_t first = size_t(layout.block(begin).offset), count = size_t(layout.elements_in(begin, end));
  if (node.options.sum == "float") {
    kernels::round_float_total(layout, node.floats.values().subspan(first, count), begin, end, node.total);
    node.floats.clear(begin, end);
  } else {
    kernels::round_total(layout, node.exact.values().subspan(first, count), {}, begin, end, node.total);
    node.exact.clear(begin, end);
  }
  model::measure_range(stream, layout, node.total, range, node.measures);
}

void run_thread(Node& node, int thread, std::vector<double>& step_seconds, double& commit_seconds) {
  const auto stream = node.backend.create_stream();
  const int64_t rows = node.work.sentences / node.options.slots;
  kernels::Arena arena(node.backend.allocate(node.model.arena_bytes(rows, rows * node.work.length, true)));
  const auto& table = node.model.parameters();
  const int64_t ranges = model::commit_ranges(table.layout());
  const auto start = Clock::now();
  while (node.running) {
    const auto begin = Clock::now();
    share(node, node.options.slots, [&](int64_t slot) { compute_slot(node, *stream, arena, slot); });
    const auto computed = Clock::now();
    alone(node, thread, [] {});
    share(node, ranges, [&](int64_t range) { round_range(node, *stream, range); });
    alone(node, thread, [&] {
      node.plan = model::begin_step(node.optimizer, node.state, node.measures,
                                    node.work.sentences * node.work.length, kernels::kSumClean);
    });
    share(node, ranges, [&](int64_t range) {
      model::apply_range(*stream, node.plan, table, node.total, range, node.state.arrays());
    });
    alone(node, thread, [] {});
    share(node, int64_t(table.all().size()),
          [&](int64_t index) { model::pack_parameter(*stream, table, size_t(index), node.state); });
    alone(node, thread, [&] {
      model::finish_step(node.plan, node.measures, node.state);
      const auto end = Clock::now();
      step_seconds.push_back(std::chrono::duration<double>(end - begin).count());
      commit_seconds += std::chrono::duration<double>(end - computed).count();
      if (std::chrono::duration<double>(end - start).count() > node.options.seconds &&
          step_seconds.size() > 2)
        node.running = false;
      else
        node.loss_units = 0;
    });
  }
}

int run(const Options& options) {
  const Workload work = workload_of(options.workload);
  const auto backend = kernels::make_cpu_backend();
  const auto shape = model::make_model(work.config);
  Node node(options, work, *backend, *shape);
  node.state = model::initial_state(*backend, *backend->create_stream(), *shape, 1);
  std::vector<double> steps;
  double commit = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < options.threads; ++t)
    threads.emplace_back([&, t] { run_thread(node, t, steps, commit); });
  for (auto& thread : threads) thread.join();

  double seconds = 0;
  for (size_t i = 1; i < steps.size(); ++i) seconds += steps[i];  // the first one warms caches and primitives
  seconds /= double(steps.size() - 1);
  const double tokens = double(work.sentences * work.length);
  const double flops = flops_a_step(work, shape->parameters());
  fmt::print(
      "{{\"system\": \"troupe\", \"model\": \"{}\", \"dtype\": \"{}\", \"mode\": \"{}\", \"threads\": {}, "
      "\"slots\": {}, \"tokens_per_s\": {:.1f}, \"step_ms\": {:.2f}, \"commit_ms\": {:.2f}, "
      "\"gflop_a_step\": {:.1f}, \"gflops\": {:.1f}, \"slot_mb\": {:.1f}, \"loss\": {:.4f}}}\n",
      options.workload.model, options.workload.dtype, options.sum, options.threads, options.slots,
      tokens / seconds, seconds * 1e3, commit / double(steps.size()) * 1e3, flops * 1e-9,
      flops * 1e-9 / seconds,
      double(shape->arena_bytes(work.sentences / options.slots, work.sentences / options.slots * work.length,
                                true)) *
          1e-6,
      double(node.loss_units) * model::LossTotals::kUnit / tokens);
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
