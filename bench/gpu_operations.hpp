// The operations of a training step on GPU 0, one by one, as rows of bench_gpu's table. Inputs are random.
#pragma once

#include "bench/gpu_meter.hpp"

namespace troupe::bench {

// Measures the meter's ceilings first. Throws Error.
void measure_operations(GpuMeter& meter);

}  // namespace troupe::bench
