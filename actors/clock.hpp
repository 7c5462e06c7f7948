// The clock that the state machines of scheduler/ are given.
#pragma once

#include <atomic>
#include <chrono>

#include "scheduler/protocol.hpp"

namespace troupe::actors {

inline std::atomic<scheduler::Microseconds> clock_offset_us = 0;

inline scheduler::Microseconds now_us() {
  return clock_offset_us + std::chrono::duration_cast<std::chrono::microseconds>(
                               std::chrono::steady_clock::now().time_since_epoch())
                               .count();
}

// What a drill does to a node, and a suspended virtual machine.
inline void make_clock_jump(std::chrono::microseconds by) {
  clock_offset_us += by.count();
}

}  // namespace troupe::actors
