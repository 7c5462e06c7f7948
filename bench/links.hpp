// What one thread can hand to another over a TCP socket of this machine, or through memory that both see.
#pragma once

namespace troupe::bench {

// Bytes a second, over about `seconds`, in pieces of 256 KiB through the loopback device, not encrypted and
// not checked.
double socket_rate(double seconds);

// The same, copied into a ring of 1 MiB in memory and out of it.
double shared_memory_rate(double seconds);

}  // namespace troupe::bench
