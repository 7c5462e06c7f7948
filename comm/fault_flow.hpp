// One direction of a connection through a FaultProxy: a bounded queue of bytes, each with the time before
// which it may not leave. Not thread-safe; never blocks. Internal to the proxy.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>

#include "comm/bulk.hpp"
#include "comm/fault_proxy.hpp"
#include "kernels/base/random.hpp"

namespace troupe::comm {

class FaultFlow {
 public:
  FaultFlow(uint64_t key, size_t piece_bytes);

  bool wants_input() const { return !ended_ && taken_ - given_ < kFaultQueueBytesMax; }
  // REQUIRES wants_input(). Reads once; false when the connection broke.
  bool take_from(int source, const Faults& faults, Clock::time_point now, FlowStats& stats);
  bool ended() const { return ended_; }  // nothing more will come
  // All was given, and the end is due.
  bool drained(Clock::time_point now) const { return ended_ && taken_ == given_ && end_due_ <= now; }

  // When the next byte, or the end of the stream, may leave; time_point::max() for never.
  Clock::time_point next_due() const;
  // Writes what is due and can be written. False when the connection broke.
  bool give_to(int sink, Clock::time_point now, FlowStats& stats);
  void pass_end(int sink, Clock::time_point now);  // once it is drained: no more will be written
  bool finished() const { return passed_end_; }

  // What is queued leaves by `now` and the new faults' delay.
  void change(const Faults& faults, Clock::time_point now);

 private:
  struct Mark {
    uint64_t end = 0;  // offset in the stream
    Clock::time_point due;
  };

  void admit(size_t bytes, const Faults& faults, Clock::time_point now, FlowStats& stats);
  void begin_piece(uint64_t piece, const Faults& faults, FlowStats& stats);
  Clock::duration stall(uint64_t piece, double loss) const;
  void corrupt(uint64_t piece, size_t begin, size_t end, double corruption, FlowStats& stats);

  Philox draw_;
  size_t piece_bytes_;
  std::unique_ptr<std::byte[]> ring_;  // kFaultQueueBytesMax; a byte lies at its offset modulo that
  uint64_t taken_ = 0, given_ = 0;     // offsets in the stream
  std::deque<Mark> marks_;             // ascending in both; at most kMarksMax
  Clock::time_point last_due_{}, line_free_{}, end_due_{};
  Clock::duration stall_{};  // of the piece that is coming
  bool ended_ = false, passed_end_ = false;
};

}  // namespace troupe::comm
