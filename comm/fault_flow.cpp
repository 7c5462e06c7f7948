#include "comm/fault_flow.hpp"

#include <algorithm>
#include <cerrno>

#include <sys/socket.h>

namespace troupe::comm {
namespace {

constexpr size_t kMarksMax = 4096;  // beyond it, bytes leave together with the last before them
constexpr int64_t kSlowBytes = 64, kSlowStepsPerSecond = 50;  // how fine a limited rate is

double uniform(uint32_t draw) {
  return double(draw) / 4294967296.0;
}

bool would_block() {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ENOBUFS;
}

Clock::duration delay_of(const Faults& faults) {
  return std::chrono::ceil<Clock::duration>(std::chrono::duration<double, std::milli>(faults.delay_ms));
}

}  // namespace

FaultFlow::FaultFlow(uint64_t key, size_t piece_bytes)
    : draw_(philox_from(key)),
      piece_bytes_(piece_bytes),
      ring_(std::make_unique_for_overwrite<std::byte[]>(kFaultQueueBytesMax)) {}

bool FaultFlow::take_from(int source, const Faults& faults, Clock::time_point now, FlowStats& stats) {
  const size_t at = size_t(taken_ % kFaultQueueBytesMax);
  const size_t room = std::min(kFaultQueueBytesMax - at, kFaultQueueBytesMax - size_t(taken_ - given_));
  const ssize_t count = recv(source, ring_.get() + at, room, MSG_DONTWAIT);
  if (count < 0 && would_block()) return true;
  if (count > 0) {
    admit(size_t(count), faults, now, stats);
    return true;
  }
  ended_ = true;
  end_due_ = std::max(last_due_, now + delay_of(faults));
  return count == 0;
}

void FaultFlow::admit(size_t bytes, const Faults& faults, Clock::time_point now, FlowStats& stats) {
  while (bytes > 0) {
    const uint64_t piece = taken_ / piece_bytes_;
    const size_t begin = size_t(taken_ % piece_bytes_);
    size_t count = std::min(bytes, piece_bytes_ - begin);
    if (const int64_t rate = faults.bytes_per_second_max; rate > 0)
      count = std::min(count, size_t(std::max(kSlowBytes, rate / kSlowStepsPerSecond)));
    stall_ = Clock::duration::zero();
    if (begin == 0) begin_piece(piece, faults, stats);
    corrupt(piece, begin, begin + count, faults.corruption, stats);
    Clock::time_point due = std::max(last_due_, now + delay_of(faults) + stall_);
    if (faults.bytes_per_second_max > 0) {
      const std::chrono::duration<double> on_the_line(double(count) / double(faults.bytes_per_second_max));
      due = line_free_ = std::max(line_free_, due) + std::chrono::ceil<Clock::duration>(on_the_line);
    }
    last_due_ = due;
    taken_ += count;
    bytes -= count;
    const bool together = !marks_.empty() && (due <= std::max(now, marks_.back().due));
    if (!together && marks_.size() < kMarksMax)
      marks_.push_back({taken_, due});
    else
      marks_.back() = {taken_, std::max(due, marks_.back().due)};
  }
}

void FaultFlow::begin_piece(uint64_t piece, const Faults& faults, FlowStats& stats) {
  ++stats.pieces;
  if (faults.delay_ms > 0 || faults.bytes_per_second_max > 0) ++stats.pieces_delayed;
  stall_ = stall(piece, faults.loss);
  if (stall_ > Clock::duration::zero()) ++stats.pieces_lost;
}

Clock::duration FaultFlow::stall(uint64_t piece, double loss) const {
  std::chrono::milliseconds total{0}, timeout{kRetransmissionMs};
  for (int attempt = 0; attempt < kRetransmissionsMax; ++attempt, timeout *= 2) {
    if (uniform(draw_(piece, 1 + uint64_t(attempt))[0]) >= loss) break;
    total += timeout;
  }
  return total;
}

// Of a piece's bytes, [begin, end) have come.
void FaultFlow::corrupt(uint64_t piece, size_t begin, size_t end, double corruption, FlowStats& stats) {
  const auto [chance, place, bit, unused] = draw_(piece);
  if (uniform(chance) >= corruption) return;
  const size_t at = size_t(uint64_t{place} * piece_bytes_ >> 32);
  if (at < begin || at >= end) return;
  ring_[(taken_ + at - begin) % kFaultQueueBytesMax] ^= std::byte(1u << (bit % 8));
  ++stats.pieces_corrupted;
}

Clock::time_point FaultFlow::next_due() const {
  if (!marks_.empty()) return marks_.front().due;
  return ended_ && !passed_end_ ? end_due_ : Clock::time_point::max();
}

bool FaultFlow::give_to(int sink, Clock::time_point now, FlowStats& stats) {
  while (!marks_.empty() && marks_.front().due <= now) {
    const size_t at = size_t(given_ % kFaultQueueBytesMax);
    const size_t count = std::min(kFaultQueueBytesMax - at, size_t(marks_.front().end - given_));
    const ssize_t sent = send(sink, ring_.get() + at, count, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return would_block();
    given_ += uint64_t(sent);
    stats.bytes += uint64_t(sent);
    if (given_ == marks_.front().end) marks_.pop_front();
  }
  return true;
}

void FaultFlow::pass_end(int sink, Clock::time_point now) {
  if (passed_end_ || !drained(now)) return;
  shutdown(sink, SHUT_WR);
  passed_end_ = true;
}

void FaultFlow::change(const Faults& faults, Clock::time_point now) {
  const Clock::time_point latest = now + delay_of(faults);
  for (Mark& mark : marks_) mark.due = std::min(mark.due, latest);
  for (Clock::time_point* time : {&last_due_, &line_free_, &end_due_}) *time = std::min(*time, latest);
}

}  // namespace troupe::comm
