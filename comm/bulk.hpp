// Bulk connections: what carries gradients and totals between two nodes. Framed, checksummed from
// end to end (a frame that arrives damaged is asked for again until it is intact, or until for
// silence_ms_max nothing but damage has come), fenced by (job, ballot), bounded in memory and in time. A
// connection may be used by one sending and one receiving thread at once; cancel() may come from any thread.
// Each side may have at most window_bytes unacknowledged; when both directions carry data at once, both ends
// must receive. All failures are PeerErrors that name the peer: peer_lost, timeout, corrupt, protocol,
// security, cancelled.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <compare>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/base/error.hpp"

using SSL_CTX = struct ssl_ctx_st;

namespace troupe::comm {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;
inline Deadline deadline_in_ms(int64_t ms) {
  return Clock::now() + std::chrono::milliseconds(ms);
}

inline constexpr size_t kFrameBytesMax = size_t{1} << 20;  // payload of one frame
inline constexpr size_t kSlotWordsMax = 16;                // 1,024 slots

struct BulkBallot {
  uint64_t number = 0;
  uint32_t leader = 0;
  auto operator<=>(const BulkBallot&) const = default;
};

struct BulkPeer {
  uint32_t rank = 0;
  std::string name;          // in the cluster file; with TLS the peer's certificate must carry it
  std::string address;       // host:port of its BulkListener; not needed to accept
  std::string host_id;       // see comm::host_id(); empty: never shares memory with us
  std::string text() const;  // "rank 2 (node-c, 10.0.0.3:9100)"
};

// A failure that is somebody's: of this peer, or of the one whom this peer reported.
class PeerError : public Error {
 public:
  PeerError(ErrorKind kind, uint32_t rank, const std::string& message) : Error(kind, message), rank_(rank) {}
  uint32_t peer_rank() const noexcept { return rank_; }

 private:
  uint32_t rank_;
};

enum class Transport : uint8_t { automatic = 1, tcp, shm };  // automatic: shm where both ends can, else tcp

// What all bulk connections of a view have in common, and who we are in it.
struct BulkSession {
  std::array<uint8_t, 32> job{};
  BulkBallot ballot;
  std::string key;      // one-time key of the view; proved by both ends, never sent
  uint32_t rank = 0;    // our own
  std::string host_id;  // our own; empty: never shares memory
  Transport transport = Transport::automatic;
  // A peer of which nothing is heard for so long while we wait is lost, and a path that for so long, and
  // eight times in a row, brings the next frame damaged is corrupt.
  int silence_ms_max = 2000;
  size_t window_bytes = size_t{4} << 20;  // sent and not yet acknowledged, a connection
  // Once true, whoever waits to connect or accept for this session gives up soon, with Error(cancelled). May
  // be empty.
  std::shared_ptr<const std::atomic<bool>> cancelled;
};

// What a frame says beside its payload. The connection adds ballot, sequence number and checksums.
struct FrameHead {
  uint8_t type = 0;  // the user's; below 128
  int64_t step = 0;
  uint32_t bucket = 0;  // the user's: bucket, group, range or whatever names the chunk
  uint32_t chunk = 0;
  std::vector<uint64_t> slots;  // slot set as words, lowest first; at most kSlotWordsMax
};

// A received frame. The payload lies in the connection's buffer, or in memory shared with the peer, until the
// next receive() or acknowledge().
struct Frame {
  FrameHead head;
  std::span<const std::byte> payload;
};

// Memory for one frame, recycled by its connection, which may share it with the peer: write the payload in
// place and send it without a copy, on the connection that gave the buffer.
class FrameBuffer {
 public:
  static constexpr size_t kHeadRoom = 256;  // before the payload, for what the connection writes there
  // At most kFrameBytesMax; keeps no contents.
  std::span<std::byte> resize_payload(size_t bytes);
  void shrink_payload(size_t bytes);  // keeps the first `bytes`
  std::span<std::byte> payload() { return {memory() + kHeadRoom, payload_bytes_}; }

 private:
  friend class BulkConnection;
  struct Borrowed {
    void operator()(std::byte*) const noexcept {}
  };
  std::byte* memory() { return place_ ? place_.get() : bytes_.data(); }

  std::unique_ptr<std::byte, Borrowed> place_;  // of the connection's shared memory; else bytes_ hold it
  std::vector<std::byte> bytes_;
  size_t payload_bytes_ = 0;
  size_t begin_ = 0;  // first byte that goes through the channel, set when it is sent
};

class BulkConnection {
 public:
  struct Core;
  explicit BulkConnection(std::unique_ptr<Core> core);
  ~BulkConnection();  // closes at once; flush() first to be sure that all has arrived
  BulkConnection(BulkConnection&&) noexcept;
  BulkConnection& operator=(BulkConnection&&) noexcept;

  const BulkPeer& peer() const;
  Transport transport() const;  // tcp or shm, as negotiated
  bool encrypted() const;
  uint64_t resends_asked() const;  // so far, because something came damaged

  // An empty buffer, one that has come back where there is one.
  FrameBuffer buffer();
  // Queues the frame and writes what can be written; waits while the window is full.
  void send(const FrameHead& head, FrameBuffer payload, Deadline deadline);
  void send(const FrameHead& head, std::span<const std::byte> payload, Deadline deadline);  // copies
  // Never waits; from any thread. Takes the frame unless earlier ones are still to be written or the window
  // is full, and writes what can be written; the rest goes out with the next send(), drain() or tend().
  enum class Sent : uint8_t { nothing, partly, wholly };
  Sent try_send(const FrameHead& head, FrameBuffer& payload);
  void drain(Deadline deadline);  // returns when all that was sent is written
  // Returns when the peer has acknowledged all that was sent. A frame in shared memory is acknowledged once
  // the peer has no more use for its payload. Here and in receive(), a wait looks for `look`
  // at what comes, while it gives way to other threads, before it sleeps.
  void flush(Deadline deadline, Clock::duration look = {});
  // The next frame, in the order sent; its checksum is right and its ballot ours. Ends the use of the last.
  Frame receive(Deadline deadline, Clock::duration look = {});
  // Lets the peer know at once that all up to the last received frame has arrived: before this end may close.
  // Ends the use of that frame. A peer that is gone is no error.
  void acknowledge(Deadline deadline);
  // Ends the use of the last received frame, no more: the peer hears of it with the next acknowledgement.
  void release();
  // Never waits: answers the peer, throws when it is known to be lost, and tells it that we live when nothing
  // was sent for a while. Call it at least every silence_ms_max / 4 from a thread that has nothing to send or
  // receive but whose peer may wait.
  void tend();

  // Ends all waits at once, now and later, with PeerError(cancelled) that gives `why`.
  void cancel(const std::string& why);
  // Tells the peer, as well as that goes within `deadline`, that this side ends because of `error`: the
  // peer's waits then fail with the same kind and rank. Cancels this end.
  void abort(const PeerError& error, Deadline deadline);

 private:
  std::unique_ptr<Core> core_;
};

struct BulkListenerOptions {
  std::string address = "127.0.0.1:0";  // host:port; port 0: the system chooses
  std::shared_ptr<SSL_CTX> tls;         // of make_server_context; empty: plain
};

// Thread-safe but for accept(), which one thread calls at a time. Lives across views.
class BulkListener {
 public:
  // Throws Error(network) when it cannot listen.
  explicit BulkListener(const BulkListenerOptions& options);
  ~BulkListener();
  BulkListener(const BulkListener&) = delete;
  BulkListener& operator=(const BulkListener&) = delete;

  std::string address() const;  // with the real port

  // The next connection whose dialler proves the key of `session` and is one of `peers`. Whoever does not is
  // turned away and does not end the wait: a later ballot is asked to try again, everything else is refused
  // for good. Throws Error(timeout) at the deadline and Error(cancelled) after cancel().
  BulkConnection accept(const BulkSession& session, std::span<const BulkPeer> peers, Deadline deadline);
  void cancel();             // ends the accept() under way, or else the next one
  void forget_cancel();      // for who cancelled and found that accept() had returned already
  uint64_t refused() const;  // dialled and turned away so far

 private:
  struct Core;
  std::unique_ptr<Core> core_;
};

// Dials until the peer answers or the deadline comes. Throws PeerError: timeout (nobody answered, or the host
// has no address), security (the peer does not have the key, or its certificate another name), protocol (it
// is in a later ballot or another job), usage (its address is none), cancelled. Without TLS a refusal counts
// the third time in a row: before, it may be damage on the way. `tls` is of make_client_context, or empty.
BulkConnection bulk_connect(const BulkSession& session, const BulkPeer& peer,
                            const std::shared_ptr<SSL_CTX>& tls, Deadline deadline);

}  // namespace troupe::comm
