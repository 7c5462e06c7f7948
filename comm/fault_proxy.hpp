// A TCP forwarder with faults, for drills and tests: peers are given its address in place of one another's,
// and it delays, slows, stalls, damages, cuts or resets what passes. Faults are set and cleared while it
// runs, from any thread; each call returns when it has taken effect. One thread of its own, and at most
// 512 KiB a connection. Clean, it forwards every byte in order, passes on ends of streams (half-closed
// connections too) and resets.
//
// A stream of bytes cannot lose some of them silently: TCP sends a lost segment again and holds back what is
// behind it. So `loss` is a stall of the whole direction, as a peer sees it; bytes that never come are what
// `cut` and reset() are for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace troupe::comm {

inline constexpr size_t kFaultQueueBytesMax = size_t{256} << 10;  // of one direction of a connection
inline constexpr int kFaultDelayMsMax = 60'000;
inline constexpr double kFaultLossMax = 0.9;
inline constexpr int kRetransmissionMs = 200;  // of a lost piece, doubling each time that it is lost again
inline constexpr int kRetransmissionsMax = 6;  // of one piece: then it is there, 12.6 s late

enum class Direction : uint8_t { to_target = 1, to_dialler, both };

// What happens to one direction; all of it at once where asked for.
struct Faults {
  // Each byte leaves at least so long after it came. As the queue is bounded, at most kFaultQueueBytesMax
  // pass in this time. The system's timers add some 0.05 ms.
  double delay_ms = 0;
  int64_t bytes_per_second_max = 0;  // 0: no limit
  double loss = 0;        // probability for each piece to be lost, and again each time it is sent again
  double corruption = 0;  // probability for each piece that one of its bits is flipped
  // Nothing passes and nothing is closed, as when a cable is pulled. Ends of streams wait as well. New
  // connections hang unanswered while any direction is cut. What was under way goes on afterwards.
  bool cut = false;
};

struct FaultProxyOptions {
  std::string listen_address = "127.0.0.1:0";  // loopback only; port 0: the system chooses
  std::string target{};                        // host:port; empty: diallers wait until there is one
  // Which pieces are lost and which bits flip depends only on the seed, the connection's number (in the order
  // accepted), the direction and the place in its stream, not on time or on how bytes come in.
  uint64_t seed = 1;
  size_t piece_bytes = size_t{16} << 10;  // 64 to kFaultQueueBytesMax: what loss and corruption count by
  int connections_max = 256;              // at a time; more wait to be accepted
};

// Since the start. A piece counts when its first byte comes.
struct FlowStats {
  uint64_t bytes = 0;  // delivered
  uint64_t pieces = 0;
  uint64_t pieces_delayed = 0;    // by delay_ms or bytes_per_second_max
  uint64_t pieces_lost = 0;       // and so stalled
  uint64_t pieces_corrupted = 0;  // one bit each
};
struct FaultStats {
  uint64_t connections = 0;  // accepted
  uint64_t connections_open = 0;
  uint64_t connections_failed = 0;  // the target refused them or was not there: the dialler was reset
  FlowStats to_target, to_dialler;
};

class FaultProxy {
 public:
  // Listens at once. Throws Error(usage) for impossible options or an address beyond loopback,
  // Error(network) when it cannot listen or the target's name has no address.
  explicit FaultProxy(const FaultProxyOptions& options);
  ~FaultProxy();  // resets what is open
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  std::string address() const;  // with the real port

  // All of these throw Error(network) when the proxy's thread has ended for want of memory or descriptors.

  // For connections that are accepted from now on. Throws Error(usage) or Error(network) for a bad address.
  void set_target(const std::string& address);
  // In place of those before. What is queued leaves as if it had just come, or earlier. Throws Error(usage)
  // for values out of range.
  void set(Direction direction, const Faults& faults);
  void heal();   // no faults any more; queued bytes leave at once, and what was cut goes on
  void reset();  // all connections, those that wait to be accepted too, end with a TCP reset
  FaultStats stats() const;

 private:
  class Core;
  std::unique_ptr<Core> core_;
};

}  // namespace troupe::comm
