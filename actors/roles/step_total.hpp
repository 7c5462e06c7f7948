// A step's total R(s) with all that a node needs to apply it and to record it: what travels to a member that
// lacks it, and to a node that catches up. As bytes: a record with an XXH3 checksum over the rest.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "comm/ring.hpp"
#include "kernels/exact_sum.hpp"
#include "scheduler/protocol.hpp"

namespace troupe::actors {

struct StepTotal {
  scheduler::Seal seal;  // who computed what; its fence names the step
  comm::SumMeta sum;
  kernels::RoundedTotal total;
};

// Of its parts where they are: a total is as large as the model.
std::vector<std::byte> to_bytes(const scheduler::Seal& seal, const comm::SumMeta& sum,
                                const kernels::RoundedTotal& total);
inline std::vector<std::byte> to_bytes(const StepTotal& total) {
  return to_bytes(total.seal, total.sum, total.total);
}
// Throws Error(corrupt).
StepTotal step_total_of(std::span<const std::byte> bytes);
// How many bytes the total of a layout takes at most.
size_t step_total_bytes_max(const kernels::BlockLayout& layout);

}  // namespace troupe::actors
