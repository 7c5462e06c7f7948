// How many cores this process may use: fewer than the machine has under taskset or in a cpuset.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>

#include <sched.h>

namespace troupe {

inline uint32_t usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return uint32_t(std::max(1, CPU_COUNT(&set)));
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace troupe
