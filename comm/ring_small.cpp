// Small reductions: what every member puts in goes round whole, once, with its integers in front, and every
// member adds it all up. That is half the hops of a ring of chunks, and one frame a hop.
#include <cstring>

#include "comm/ring_engine.hpp"
#include "comm/sum_meta.hpp"

namespace troupe::comm {
namespace {

constexpr int64_t kSmallElements = 8192;
constexpr int64_t kGatheredElements = 32'768;   // of all others: what goes over a link, kept in a near cache
constexpr std::chrono::microseconds kLook{50};  // at what comes, before the waiting thread sleeps
constexpr int64_t kFlushMs = 500;

}  // namespace

// The same at every member, as plans are.
bool RingEngine::is_small(const RingJob& job) const {
  if (size() == 1 || job.plan.groups() > 1) return false;
  int64_t elements = 0;
  for (const Bucket& chunk : job.plan.chunks) elements += job.work->elements(chunk);
  return elements <= kSmallElements && elements * int64_t(size() - 1) <= kGatheredElements;
}

Bucket RingEngine::whole() const {
  const auto& chunks = job_.plan.chunks;
  return chunks.empty() ? Bucket{} : Bucket{chunks.front().begin, chunks.back().end};
}

// Sends wait for the link, but all that is under way in the ring fits into what lies between two members.
void RingEngine::reduce_here(Deadline deadline) try {
  const MetaWords own = to_words(*own_meta_);
  FrameBuffer buffer = links_.next->buffer();
  job_.work->originate(whole(), buffer, sizeof own);
  std::memcpy(buffer.payload().data(), own.data(), sizeof own);
  send_whole({uint8_t(FrameType::whole), job_.step, 0, uint32_t(position_), job_.slots.own[position_]},
             std::move(buffer), deadline);
  for (; received_ < to_receive_; ++received_)
    take_whole(links_.previous->receive(deadline, kLook), (position_ + size() - 1 - received_) % size(),
               deadline);
  links_.previous->release();
  job_.work->add_gathered(whole(), position_);
  unflushed_ = true;
} catch (const PeerError& error) {
  if (error.kind() == ErrorKind::timeout && Clock::now() >= deadline) throw late();
  throw;
}

void RingEngine::send_whole(const FrameHead& head, FrameBuffer payload, Deadline deadline) {
  {
    const std::lock_guard lock(mutex_);
    throw_if_failed();
    stats_.bytes_sent += payload.payload().size();
    stats_.elements_gathered += uint64_t(job_.work->elements(whole()));
  }
  links_.next->send(head, std::move(payload), deadline);
}

// A part that is of no use is its maker's: it has come over checked links, though the memory of a member that
// handed it on may have changed it.
void RingEngine::take_whole(const Frame& frame, size_t from, Deadline deadline) {
  check_step(frame);
  if (frame.head.type != uint8_t(FrameType::whole) || frame.head.chunk != from)
    throw protocol_error(fmt::format("frame {} of type {} in a small reduction, where {} was expected",
                                     frame.head.chunk, frame.head.type, from));
  const auto useless = [&](ErrorKind kind, const std::string& why) {
    const BulkPeer& maker = members_[from];
    return PeerError(kind, maker.rank,
                     fmt::format("{} made a part that is of no use: {}", maker.text(), why));
  };
  MetaWords words{};
  if (frame.head.slots != job_.slots.own[from])
    throw useless(ErrorKind::protocol, "it has other slots than the seal says");
  if (frame.payload.size() < sizeof words)
    throw useless(ErrorKind::protocol, fmt::format("it has {} bytes", frame.payload.size()));
  if (from != (position_ + 1) % size()) {
    FrameBuffer copy = links_.next->buffer();
    std::memcpy(copy.resize_payload(frame.payload.size()).data(), frame.payload.data(), frame.payload.size());
    send_whole(frame.head, std::move(copy), deadline);
  }
  try {
    job_.work->gather(whole(), from, frame.payload.subspan(sizeof words));
  } catch (const Error& problem) {
    throw useless(problem.kind(), problem.what());
  }
  std::memcpy(words.data(), frame.payload.data(), sizeof words);
  const std::lock_guard lock(mutex_);
  meta_ += from_words(words);
}

// wait() does not wait for the next member's acknowledgement here, which would be another hop. A link that is
// closed carries what was written to its end, but repeats nothing that was damaged on the way.
void RingEngine::flush_small() noexcept try {
  {
    const std::lock_guard lock(mutex_);
    if (!unflushed_ || failure_ || !idle()) return;
  }
  links_.next->flush(deadline_in_ms(kFlushMs));
} catch (const std::exception&) {
  // It is gone, or busy.
}

}  // namespace troupe::comm
