// Advisory locks of whole files (flock): they belong to the open file, and go with the process.
#pragma once

#include <cerrno>

#include <sys/file.h>

namespace troupe {

// `how`: LOCK_EX or LOCK_SH. False: another has it. A file system without locks gives it to everyone.
inline bool try_lock(int descriptor, int how) {
  return ::flock(descriptor, how | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

}  // namespace troupe
