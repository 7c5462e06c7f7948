// The operations of a training step on GPU 0, one by one, as rows of bench_gpu's table. Inputs are random.
#pragma once

#include "bench/gpu_meter.hpp"

namespace troupe::bench {

// Of copies and products, which the other rows are held against. Throw Error.
void measure_ceilings(GpuMeter& meter);
void measure_operations(GpuMeter& meter);

}  // namespace troupe::bench
