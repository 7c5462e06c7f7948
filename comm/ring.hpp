// Ring allreduce (Patarasuk & Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations",
// JPDC 2009) of SUMs and of floats, and broadcast, among the members of a view. Every member calls the same
// operations in the same order. A reduction runs bucket by bucket as buckets become ready, in chunks of
// bounded size, on two threads that the Ring owns; a small one on the thread that waits for it, by handing
// round what each member puts in. One member: everything is local. Each member ends with the same bits, or
// with a PeerError that names the member who failed; after an error only cancel(), stop() and the destructor
// may be called.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/bulk.hpp"
#include "kernels/exact_sum.hpp"

namespace troupe::comm {

// The integers of a SUM beside its gradient; added exactly, flags are united.
struct SumMeta {
  int64_t target_tokens = 0;
  int64_t correct = 0;
  int64_t loss = 0;  // in units of the caller's fixed grid
  int64_t nll = 0;   // the same
  int64_t samples = 0;
  std::array<int64_t, 3> more{};              // the caller's
  uint32_t flags = 0;                         // kernels::SumFlags
  SumMeta& operator+=(const SumMeta& other);  // modulo 2^64
  bool operator==(const SumMeta&) const = default;
};

// Blocks [begin, end) of the layout (or elements, in a reduction of floats).
struct Bucket {
  int64_t begin = 0;
  int64_t end = 0;
};

// Views in here must stay valid until wait() returns; the accumulator is read only, and block by block only
// after its bucket is ready.
struct ExactReduction {
  int64_t step = 0;
  const kernels::BlockLayout* layout = nullptr;
  std::span<const int64_t> accumulator;    // (elements)
  kernels::RoundedTotal* total = nullptr;  // resized and overwritten
  kernels::RoundOptions rounding;
  std::vector<std::vector<uint64_t>>
      contributions;            // slot words of each member in ring order: the Seal, disjoint
  std::vector<Bucket> buckets;  // cover all blocks, each once; reduced in this order
};

// In place: values becomes the sum over all members. The association depends on the ring, as in any float
// allreduce.
struct FloatReduction {
  int64_t step = 0;
  std::span<float> values;
  std::vector<std::vector<uint64_t>> contributions;
  std::vector<Bucket> buckets;  // of elements; cover all, each once
};

struct RingOptions {
  int64_t chunk_elements_max = 65536;  // at most 100,000
  // Chunks that a member has under way at once; bounds memory. 0: as many as a network's delay asks for, or,
  // when all members are on one machine, as few as stay in its caches.
  int groups_in_flight = 0;
};

// What a reduction put on this member's outgoing link, and how often the incoming one had to be repeated.
struct RingStats {
  uint64_t bytes_sent = 0;         // payloads
  uint64_t elements_reduced = 0;   // sent as partial sums
  uint64_t elements_gathered = 0;  // sent as totals
  uint64_t resends_asked = 0;      // of the previous member, for damage, since the ring was connected
};

// The two neighbours' connections; empty for a ring of one.
struct RingLinks {
  std::optional<BulkConnection> next;
  std::optional<BulkConnection> previous;
};

// Dials the next member and accepts the previous one, at the same time. `members` in ring order, own place
// included. Throws PeerError naming who is missing, or of kind cancelled once session.cancelled says so.
RingLinks connect_ring(BulkListener& listener, const BulkSession& session, std::span<const BulkPeer> members,
                       const std::shared_ptr<SSL_CTX>& tls, Deadline deadline);

class Ring {
 public:
  // `members` in ring order, `position` our place in it. REQUIRES links for more than one member.
  Ring(std::vector<BulkPeer> members, size_t position, RingLinks links, RingOptions options = {});
  ~Ring();  // cancels what is under way
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  size_t size() const;
  size_t position() const;

  // REQUIRES that nothing is under way. Throws Error(protocol) when contributions are not disjoint.
  void start(const ExactReduction& reduction);
  void start(const FloatReduction& reduction);
  void bucket_ready(size_t index);  // the accumulator of this bucket has its final values; any thread
  void check() const;               // throws what wait() would throw, when the reduction has failed
  void finish(const SumMeta& own);  // all buckets are ready, and these are our integers
  // The sum of all members' integers, when everything has arrived here. The next member has all of ours then,
  // or, of a small reduction, at the latest when the ring is closed, which waits up to 500 ms for it.
  SumMeta wait(Deadline deadline);

  // All at once: start, all buckets ready, finish, wait.
  SumMeta reduce(const ExactReduction& reduction, const SumMeta& own, Deadline deadline);
  SumMeta reduce(const FloatReduction& reduction, const SumMeta& own, Deadline deadline);

  // Everyone ends with the bytes of the member at position `root`, which gives their number; others' `bytes`
  // is resized, after checking bytes_max.
  void broadcast(size_t root, std::vector<std::byte>& bytes, size_t bytes_max, Deadline deadline);

  // From any thread: ends what is under way, here with PeerError(cancelled), at the others with what `why`
  // says.
  void cancel(const std::string& why);
  // The same, and returns when the ring's threads have no more use for what start() was given.
  void stop(const std::string& why);
  RingStats stats() const;  // of the last reduction; REQUIRES that nothing is under way

 private:
  struct Core;
  std::unique_ptr<Core> core_;
};

// The usual partition into buckets: about `elements` each (0: one bucket), last layers first.
std::vector<Bucket> buckets_last_first(const kernels::BlockLayout& layout, int64_t elements);

}  // namespace troupe::comm
