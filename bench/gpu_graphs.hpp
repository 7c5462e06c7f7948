// What CUDA graphs save: slots of a model on GPU 0 with and without them, in one row of bench_gpu's table.
#pragma once

#include <span>

#include "model/device_trainer.hpp"

namespace troupe::bench {

// REQUIRES batches of one shape. Throws Error.
void measure_graphs(const char* name, const model::Model& model, const model::StepOptions& options,
                    std::span<const Batch> batches);

}  // namespace troupe::bench
