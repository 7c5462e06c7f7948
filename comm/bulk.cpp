#include "comm/bulk.hpp"

#include "comm/bulk_core.hpp"

namespace troupe::comm {

std::string BulkPeer::text() const {
  return address.empty() ? fmt::format("rank {} ({})", rank, name)
                         : fmt::format("rank {} ({}, {})", rank, name, address);
}

std::span<std::byte> FrameBuffer::resize_payload(size_t bytes) {
  TROUPE_CHECK(bytes <= kFrameBytesMax, "a frame of {} bytes; at most {}", bytes, kFrameBytesMax);
  if (!place_ && bytes_.size() < kHeadRoom + bytes) bytes_.resize(kHeadRoom + bytes);
  payload_bytes_ = bytes;
  return payload();
}

void FrameBuffer::shrink_payload(size_t bytes) {
  TROUPE_CHECK(bytes <= payload_bytes_);
  payload_bytes_ = bytes;
}

BulkConnection::BulkConnection(std::unique_ptr<Core> core) : core_(std::move(core)) {}
BulkConnection::~BulkConnection() = default;
BulkConnection::BulkConnection(BulkConnection&&) noexcept = default;
BulkConnection& BulkConnection::operator=(BulkConnection&&) noexcept = default;

const BulkPeer& BulkConnection::peer() const {
  return core_->peer;
}
Transport BulkConnection::transport() const {
  return core_->transport;
}
bool BulkConnection::encrypted() const {
  return core_->channel->encrypted();
}

uint64_t BulkConnection::resends_asked() const {
  std::lock_guard lock(core_->mutex);
  return core_->resends_asked;
}

FrameBuffer BulkConnection::buffer() {
  std::lock_guard lock(core_->mutex);
  if (core_->spare.empty()) return {};
  FrameBuffer buffer = std::move(core_->spare.back());
  core_->spare.pop_back();
  return buffer;
}

void BulkConnection::send(const FrameHead& head, FrameBuffer payload, Deadline deadline) {
  Core& core = *core_;
  std::unique_lock lock(core.mutex);
  if (core.failure) throw PeerError(*core.failure);
  core.wait_until(
      lock, [&] { return core.has_room(head, payload); }, deadline, "room in its window");
  core.enqueue(head, std::move(payload));
  core.wait_until(
      lock, [&] { return core.all_written(); }, deadline, "it to read what we send");
}

BulkConnection::Sent BulkConnection::try_send(const FrameHead& head, FrameBuffer& payload) {
  Core& core = *core_;
  const std::lock_guard lock(core.mutex);
  if (core.failure) throw PeerError(*core.failure);
  if (!core.all_written() || !core.has_room(head, payload)) return Sent::nothing;
  core.enqueue(head, std::move(payload));
  core.progress();
  return core.all_written() ? Sent::wholly : Sent::partly;
}

void BulkConnection::drain(Deadline deadline) {
  Core& core = *core_;
  std::unique_lock lock(core.mutex);
  core.wait_until(
      lock, [&] { return core.all_written(); }, deadline, "it to read what we send");
}

void BulkConnection::send(const FrameHead& head, std::span<const std::byte> payload, Deadline deadline) {
  FrameBuffer copy = buffer();
  const auto room = copy.resize_payload(payload.size());
  if (!payload.empty()) std::memcpy(room.data(), payload.data(), payload.size());
  send(head, std::move(copy), deadline);
}

void BulkConnection::flush(Deadline deadline, Clock::duration look) {
  Core& core = *core_;
  std::unique_lock lock(core.mutex);
  const auto acknowledged = [&] { return core.unacknowledged.empty(); };
  core.look_for(lock, acknowledged, look);
  if (!acknowledged()) core.owes_ask = true;
  core.bytes_since_ask = 0;
  core.wait_until(lock, acknowledged, deadline, "its acknowledgement");
}

Frame BulkConnection::receive(Deadline deadline, Clock::duration look) {
  Core& core = *core_;
  std::unique_lock lock(core.mutex);
  core.release_frame();
  const auto arrived = [&] { return core.frame_ready; };
  core.look_for(lock, arrived, look);
  core.wait_until(lock, arrived, deadline, "a frame");
  core.handed_out = true;
  core.changed.notify_all();  // another thread may read on while the user looks at this frame
  const WireHead& wire = core.ready_head;
  Frame frame{{wire.type, wire.step, wire.bucket, wire.chunk, {}}, {}};
  const std::byte* body = core.ready_body;
  frame.head.slots.resize(wire.slot_words);
  if (wire.slot_words > 0) std::memcpy(frame.head.slots.data(), body, wire.slot_words * sizeof(uint64_t));
  frame.payload = {body + wire.slot_words * sizeof(uint64_t), wire.payload_bytes};
  return frame;
}

void BulkConnection::acknowledge(Deadline deadline) {
  Core& core = *core_;
  std::unique_lock lock(core.mutex);
  core.release_frame();
  core.owes_ack = true;
  // A peer that had its answer while we were still reading may have ended since: it needs none.
  const auto told = [&] { return (!core.owes_ack && core.control.empty()) || core.failure; };
  core.wait_until(lock, told, deadline, "room for an acknowledgement");
}

void BulkConnection::release() {
  const std::lock_guard lock(core_->mutex);
  core_->release_frame();
}

void BulkConnection::tend() {
  Core& core = *core_;
  std::lock_guard lock(core.mutex);
  core.progress();
  if (Clock::now() - core.last_write >= core.silence_max / 4) {
    core.show_life();
    core.progress();
  }
  if (core.failure && (!core.frame_ready || core.handed_out)) throw PeerError(*core.failure);
}

void BulkConnection::cancel(const std::string& why) {
  Core& core = *core_;
  std::lock_guard lock(core.mutex);
  if (!core.cancelled) {
    core.cancelled = true;
    core.failure = PeerError(ErrorKind::cancelled, core.peer.rank,
                             fmt::format("connection with {} cancelled: {}", core.peer.text(), why));
  }
  core.changed.notify_all();
  core.channel->interrupt();
}

void BulkConnection::abort(const PeerError& error, Deadline deadline) {
  Core& core = *core_;
  {
    std::unique_lock lock(core.mutex);
    if (core.cancelled) return;
    core.write_abort(lock, error, deadline);
  }
  cancel(error.what());
}

}  // namespace troupe::comm
