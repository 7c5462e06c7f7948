// Shared memory between two processes of one machine, as the transport of a bulk connection: a bounded ring
// of bytes each way in a sealed memfd, with futex waits, and places in which the sender writes a payload and
// the receiver reads it without a copy. The TCP connection of the handshake stays open as
// the life line. The memory has no name in any file system, so nothing is left behind however the processes
// end.
#pragma once

#include <string>

namespace troupe::comm {

// Equal for processes that can share memory: boot, user and process-id namespace (memory is passed through
// /proc). Empty where the system does not tell. Whether it really works is tried when two nodes connect.
std::string host_id();

// Why this process cannot make the memory of a connection; empty when it can.
std::string why_no_shared_memory();

}  // namespace troupe::comm
