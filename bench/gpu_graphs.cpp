#include "bench/gpu_graphs.hpp"

#include "bench/wait_meter.hpp"
#include "kernels/cuda/cuda_graph.hpp"
#include "kernels/cuda/cuda_runtime.hpp"
#include "kernels/cuda/graph_runtime.hpp"

namespace troupe::bench {

namespace {

using namespace kernels;

struct Measured {
  double slot_ms = 0;
  double host_ms = 0;         // of it, without waiting for the device
  double graph_bytes = 0;     // of the device, between slots run call by call and slots run as graphs
  std::vector<int64_t> sums;  // of all slots
};

Measured measure(CudaStream& stream, WaitMeter& meter, const model::Model& model,
                 const model::StepOptions& options, std::span<const Batch> batches) {
  constexpr int kDirectSlots = 2, kWarmSlots = 6, kSlots = 40;
  model::DeviceTrainer trainer(stream, model, options);
  trainer.clear_sum();
  const auto run = [&](int slots) {
    for (int slot = 0; slot < slots; ++slot) {
      uint32_t flags = 0;  // as a node runs them, with the marks between parts of a slot
      trainer.fold_slot(batches[size_t(slot) % batches.size()], uint32_t(slot), flags, [](int64_t) {});
    }
    stream.synchronize();
  };
  Measured measured;
  run(kDirectSlots);  // temporary memory grows in the first, and stays where it is from the second on
  const size_t free = stream.runtime().memory().free;
  run(kWarmSlots);
  measured.graph_bytes = double(free) - double(stream.runtime().memory().free);
  meter.take_waited_ms();
  const auto begin = std::chrono::steady_clock::now();
  run(kSlots);
  const double ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  measured.slot_ms = ms / kSlots;
  measured.host_ms = (ms - meter.take_waited_ms()) / kSlots;
  measured.sums.resize(size_t(model.parameters().elements()));
  trainer.sum().copy_to_host(stream, measured.sums.data());
  return measured;
}

}  // namespace

void measure_graphs(const char* name, const model::Model& model, const model::StepOptions& options,
                    std::span<const Batch> batches) {
  const auto metered = [] { return std::make_unique<WaitMeter>(make_cuda_runtime(0)); };
  Measured with, without;
  GraphCache::Totals totals;
  {
    auto direct = metered();
    WaitMeter& meter = *direct;
    auto graphs = make_cuda_graphs(*direct, 0);
    auto runtime = std::make_unique<GraphRuntime>(std::move(direct), std::move(graphs));
    const GraphCache& cache = runtime->cache();
    CudaStream stream(std::move(runtime));
    with = measure(stream, meter, model, options, batches);
    totals = cache.totals();
  }
  {
    auto direct = metered();
    WaitMeter& meter = *direct;
    CudaStream stream(std::move(direct));
    without = measure(stream, meter, model, options, batches);
  }
  fmt::print(
      "| {}: a slot with CUDA graphs, and without | {:.2f} and {:.2f} ms | {:.2f} and {:.2f} ms of the host "
      "| "
      "{} graphs in {:.1f} MB, {} launched, {:.0f} nodes set for each |\n",
      name, with.slot_ms, without.slot_ms, with.host_ms, without.host_ms, totals.captures,
      with.graph_bytes * 1e-6, totals.launches,
      double(totals.updates) / double(std::max<int64_t>(totals.launches, 1)));
  if (with.sums != without.sums)
    throw error(ErrorKind::numeric, "{}: slots with CUDA graphs have other sums than slots without", name);
}

}  // namespace troupe::bench
