// The bounds of every field of every message, checked one by one. Internal to messages.cpp.
#pragma once

#include <optional>
#include <string>

namespace troupe::wire {

class Envelope;

// The first field out of its bounds, or nothing. Does not look at the encoded size.
std::optional<std::string> check_fields(const Envelope& envelope);

}  // namespace troupe::wire
