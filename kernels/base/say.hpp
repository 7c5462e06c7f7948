// What a program says to people on standard error, beside its work. Where nothing takes it, as on a full disk
// or in a pipe that nobody reads, it is lost and the work goes on: nothing here throws for that. Thread-safe.
#pragma once

#include <cstdio>
#include <string>

namespace troupe {

// As it is, without the end of a line.
inline void say_unended(const std::string& text) {
  std::fputs(text.c_str(), stderr);
}

inline void say(const std::string& line) {
  say_unended(line + "\n");
}

}  // namespace troupe
