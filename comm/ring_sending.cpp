// The sending half of the engine: what leaves a member, by the sending thread or by the one that received.
#include <cstring>
#include <utility>

#include "comm/ring_engine.hpp"
#include "comm/sum_meta.hpp"

namespace troupe::comm {

void RingEngine::send_all() {
  if (size() == 1) return complete_all_alone();
  for (;;) {
    if (send_one()) continue;
    std::unique_lock lock(mutex_);
    if (sent_ == to_send_) break;
    if (unwritten_ || !outbox_.empty() || has_own() || failure_) continue;
    if (changed_.wait_for(lock, kTick) == std::cv_status::no_timeout) continue;
    lock.unlock();
    try {
      links_.next->tend();
    } catch (const PeerError&) {
      lock.lock();
      if (sent_ < to_send_ && !handing_over_) throw;  // else it may have all it needs, and be gone
    }
  }
  links_.next->flush(deadline_in_ms(kFarMs));
}

// What can be sent now: chunks on their way come first, then our own. False when there is nothing.
bool RingEngine::send_one() {
  std::unique_lock lock(mutex_);
  throw_if_failed();
  if (std::exchange(unwritten_, false)) {
    lock.unlock();
    links_.next->drain(deadline_in_ms(kFarMs));
    return true;
  }
  if (!outbox_.empty()) {
    Item item = std::move(outbox_.front());
    outbox_.pop_front();
    lock.unlock();
    send(std::move(item));
    return true;
  }
  lock.unlock();
  std::optional<Item> item = next_own();
  if (item) send(std::move(*item));
  return item.has_value();
}

bool RingEngine::has_own() const {
  return originated_ < std::min(groups_ready_, groups_done_ + groups_in_flight_) ||
         (own_meta_ && !meta_sent_ && originated_ == job_.plan.groups());
}

// What has its turn of our own chunks, or our integers after them.
std::optional<RingEngine::Item> RingEngine::next_own() {
  std::unique_lock lock(mutex_);
  if (!has_own()) return std::nullopt;
  Item item;
  if (originated_ < job_.plan.groups()) {
    const size_t group = originated_++;
    lock.unlock();
    item.payload = links_.next->buffer();
    job_.work->originate(job_.plan.chunk(group, position_), item.payload);
    item.head = {uint8_t(FrameType::partial), job_.step, uint32_t(group), uint32_t(position_), {}};
  } else {
    meta_sent_ = true;
    const MetaWords words = to_words(*own_meta_);
    lock.unlock();
    item.payload = links_.next->buffer();
    std::memcpy(item.payload.resize_payload(sizeof words).data(), words.data(), sizeof words);
    item.head = {uint8_t(FrameType::meta), job_.step, 0, uint32_t(position_), {}};
  }
  item.head.slots = job_.slots.own[position_];
  return item;
}

void RingEngine::send(Item item) {
  {
    // What next_own() has read, the receiving thread may overwrite from now on.
    const std::lock_guard lock(mutex_);
    count_sent(item.head, item.payload.payload().size());
  }
  links_.next->send(item.head, std::move(item.payload), deadline_in_ms(kFarMs));
  const std::lock_guard lock(mutex_);
  ++sent_;
}

// Of the receiving thread: what the link takes without waiting it sends itself.
void RingEngine::send_or_leave(Item item) {
  const size_t bytes = item.payload.payload().size();
  std::unique_lock lock(mutex_);
  auto sent = BulkConnection::Sent::nothing;
  if (outbox_.empty() && !unwritten_) {
    handing_over_ = true;
    lock.unlock();
    sent = links_.next->try_send(item.head, item.payload);
    lock.lock();
    handing_over_ = false;
  }
  if (sent == BulkConnection::Sent::nothing) {
    if (outbox_.size() >= 2 * groups_in_flight_ * size() + size())
      throw protocol_error("more chunks than a member may have under way");
    outbox_.push_back(std::move(item));
    wake_sender();
    return;
  }
  count_sent(item.head, bytes);
  unwritten_ = sent == BulkConnection::Sent::partly;
  if (++sent_ == to_send_ || unwritten_) wake_sender();
}

void RingEngine::wake_sender() {
  if (!here_) changed_.notify_all();
}

void RingEngine::send_own_or_leave() {
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (!outbox_.empty() || unwritten_) return;  // the sending thread is awake
    }
    std::optional<Item> item = next_own();
    if (!item) return;
    send_or_leave(std::move(*item));
  }
}

void RingEngine::count_sent(const FrameHead& head, size_t bytes) {
  stats_.bytes_sent += bytes;
  if (head.type > uint8_t(FrameType::total)) return;
  (head.type == uint8_t(FrameType::partial) ? stats_.elements_reduced : stats_.elements_gathered) +=
      uint64_t(job_.work->elements(job_.plan.chunk(head.bucket, head.chunk)));
}

}  // namespace troupe::comm
