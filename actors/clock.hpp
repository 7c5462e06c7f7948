// The clock that the state machines of scheduler/ are given.
#pragma once

#include <chrono>

#include "scheduler/protocol.hpp"

namespace troupe::actors {

inline scheduler::Microseconds now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace troupe::actors
