#include "scheduler/fingerprint.hpp"

#include <sstream>

namespace troupe::scheduler {

std::string first_difference(const std::string& ours, const std::string& theirs) {
  std::istringstream left(ours), right(theirs);
  std::string a, b;
  while (true) {
    const bool more_a = bool(std::getline(left, a)), more_b = bool(std::getline(right, b));
    if (!more_a && !more_b) return "its fingerprint";
    if (more_a == more_b && a == b) continue;
    std::string text = "\"";
    text.append(more_b ? b : "").append("\" instead of \"").append(more_a ? a : "").append("\"");
    return text;
  }
}

}  // namespace troupe::scheduler
