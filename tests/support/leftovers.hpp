// Ends processes that outlive the test that started them. Nodes of a local cluster live in sessions of their
// own and go on when their client is killed, so every process a test starts, and whatever that starts, bears
// a mark in its environment by which it is found.
#pragma once

#include <string>

#include <sys/types.h>

namespace troupe::test {

// NAME=VALUE, the same for the whole life of this test program. Process puts it into its children's
// environment.
const std::string& leftovers_mark();
// Kills every process that bears the mark, and what those start meanwhile. Cheap when nothing was ever
// started.
void kill_leftovers();

// A process of its own that does the same when this program ends in any way, killed included. Made before
// there are threads, before any other process is started.
class Keeper {
 public:
  Keeper();
  ~Keeper();
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

 private:
  pid_t id_ = -1;
  int life_line_ = -1;  // its other end reads the end of file when we are gone
};

}  // namespace troupe::test
