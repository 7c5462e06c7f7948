// A mistake a user can make, the exit code and what the one line on standard error must say.
#pragma once

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "tests/support/process.hpp"

namespace troupe::test {

struct Mistake {
  const char* name;
  std::vector<std::string> arguments;  // after the program's name
  int code = 2;
  std::vector<std::string> says;  // each must be part of standard error
  std::string input = {};
};

inline void check_mistake(const Mistake& mistake) {
  CAPTURE(mistake.name);
  std::vector<std::string> command{TROUPE_PROGRAM};
  command.insert(command.end(), mistake.arguments.begin(), mistake.arguments.end());
  const ProcessResult result = run(command, mistake.input);
  CAPTURE(result.err);
  CAPTURE(result.out);
  CHECK(result.code == mistake.code);
  for (const std::string& part : mistake.says) {
    CAPTURE(part);
    CHECK(result.err.find(part) != std::string::npos);
  }
  // Said once, in the program's name, without the innards of a library.
  const std::string lines = "\n" + result.err;  // perhaps progress, then the error
  const size_t first = lines.find("\ntroupe: ");
  CHECK(first != std::string::npos);
  CHECK(lines.find("\ntroupe: ", first + 1) == std::string::npos);
  CHECK(result.err.find("terminate called") == std::string::npos);
  CHECK(result.err.find("this is a bug") == std::string::npos);
}

}  // namespace troupe::test
