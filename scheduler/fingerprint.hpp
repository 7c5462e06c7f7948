// What all nodes of a job must agree on for the same bits to come out, as text: one "key=value" a line. Pure.
#pragma once

#include <string>

namespace troupe::scheduler {

// The first line of each that the other does not have, in words: what two nodes disagree about.
std::string first_difference(const std::string& ours, const std::string& theirs);

}  // namespace troupe::scheduler
