// The writing half of a connection: frames that wait for their acknowledgement, and control frames.
#include <algorithm>
#include <utility>

#include "comm/bulk_core.hpp"
#include "comm/messages.hpp"

namespace troupe::comm {
namespace {

constexpr int kFramesUnasked = 16;         // then an acknowledgement is asked for: places come back in time
constexpr size_t kInPlaceBytesMin = 4096;  // of a payload; a smaller one is copied through the stream

// At the beginning of a place lies what goes through the stream, at its end slots and payload.
static_assert(FrameBuffer::kHeadRoom >= sizeof(WireHead) + (kSlotWordsMax + 1) * sizeof(uint64_t));

// The sets of slots that go round the ring are those that nodes grant and seal by messages.
static_assert(kSlotWordsMax == size_t{wire::kSlotWordsMax});

}  // namespace

bool BulkConnection::Core::has_room(const FrameHead& head, const FrameBuffer& payload) const {
  const size_t bytes = sizeof(WireHead) + head.slots.size() * sizeof(uint64_t) + payload.payload_bytes_;
  return unacknowledged.empty() || unacknowledged_bytes + bytes <= window_bytes;
}

void BulkConnection::Core::enqueue(const FrameHead& head, FrameBuffer payload) {
  TROUPE_CHECK(head.type < 128, "frame type {}", head.type);
  TROUPE_CHECK(head.slots.size() <= kSlotWordsMax, "{} slot words", head.slots.size());
  if (!payload.place_ && payload.bytes_.empty()) payload.resize_payload(0);
  WireHead wire;
  wire.type = head.type;
  wire.slot_words = uint8_t(head.slots.size());
  wire.sequence = next_sequence++;
  wire.ballot_number = ballot.number;
  wire.ballot_leader = ballot.leader;
  wire.bucket = head.bucket;
  wire.step = head.step;
  wire.chunk = head.chunk;
  wire.payload_bytes = uint32_t(payload.payload_bytes_);
  const bool in_place = payload.place_ && payload.payload_bytes_ >= kInPlaceBytesMin;
  if (in_place) wire.flags |= kInPlace;
  const size_t slot_bytes = head.slots.size() * sizeof(uint64_t), bytes = sizeof wire + wire.body_bytes();
  bytes_since_ask += bytes;
  if (bytes_since_ask >= window_bytes / 4 || ++frames_since_ask >= kFramesUnasked) {
    wire.flags |= kWantsAck;
    bytes_since_ask = 0;
    frames_since_ask = 0;
  }
  std::byte* body = payload.memory() + FrameBuffer::kHeadRoom - slot_bytes;
  if (slot_bytes > 0) std::memcpy(body, head.slots.data(), slot_bytes);
  seal(wire, {body, wire.body_bytes()});
  payload.begin_ = in_place ? 0 : FrameBuffer::kHeadRoom - slot_bytes - sizeof wire;
  std::byte* start = payload.memory() + payload.begin_;
  std::memcpy(start, &wire, sizeof wire);
  if (in_place) {
    const uint64_t place = uint64_t(payload.memory() - places.own) / kPlaceBytes;
    std::memcpy(start + sizeof wire, &place, sizeof place);
  }
  unacknowledged_bytes += bytes;
  unacknowledged.push_back({std::move(payload), wire.sequence, bytes, wire.stream_bytes()});
}

bool BulkConnection::Core::write_bytes(std::span<const std::byte> bytes, size_t& offset) {
  while (offset < bytes.size()) {
    const Moved moved = channel->write(bytes.subspan(offset));
    if (moved.closed) {
      // What the peer said before it left tells why: it is still to be read, so reading decides.
      write_failed = true;
      read_some();
      if (frame_ready || read_polled) return false;
      fail(ErrorKind::peer_lost, fmt::format("lost {}: {}", peer.text(), moved.why));
      return false;
    }
    if (moved.bytes == 0) return false;
    offset += moved.bytes;
    last_write = Clock::now();
  }
  return true;
}

void BulkConnection::Core::write_some() {
  while (!write_failed) {
    if (!write_begun) {
      if (control.empty() && rewind) {
        write_index = 0;
        rewind = false;
        owes_alive = true;  // says from which frame on we write again
      }
      if (!control.empty() || next_control()) {
        if (!write_bytes(control, control_offset)) return;
        control.clear();
        control_offset = 0;
        continue;
      }
      if (write_index >= unacknowledged.size()) return;
    }
    write_begun = true;
    Outgoing& frame = unacknowledged[write_index];
    const std::span<const std::byte> bytes(frame.buffer.memory() + frame.buffer.begin_, frame.stream_bytes);
    if (!write_bytes(bytes, write_offset)) return;
    write_begun = false;
    write_offset = 0;
    ++write_index;
    drop_acknowledged();
  }
}

bool BulkConnection::Core::next_control() {
  if (!abort_frame.empty()) {
    control.swap(abort_frame);
    abort_frame.clear();
  } else if (std::exchange(owes_resend, false)) {
    owes_ack = false;
    encode_control(ControlType::resend, expected);
  } else if (std::exchange(owes_ack, false)) {
    encode_control(ControlType::ack, expected);
  } else if (std::exchange(owes_alive, false)) {
    encode_control(ControlType::alive, written());
  } else if (std::exchange(owes_ask, false)) {
    // After the frames that it asks about, so that the answer covers them.
    if (write_index < unacknowledged.size()) {
      owes_ask = true;
      return false;
    }
    encode_control(ControlType::ask_ack, written());
  }
  return !control.empty();
}

uint64_t BulkConnection::Core::written() const {
  return write_index < unacknowledged.size() ? unacknowledged[write_index].sequence : next_sequence;
}

void BulkConnection::Core::encode_control(ControlType type, uint64_t sequence) {
  WireHead head;
  head.type = uint8_t(type);
  head.sequence = sequence;
  if (type == ControlType::ack || type == ControlType::resend) {
    head.bucket = is_ready_in_place() ? 1 : 0;
    answered_early = is_ready_in_place();
  }
  head.ballot_number = ballot.number;
  head.ballot_leader = ballot.leader;
  seal(head, {});
  control.resize(sizeof head);
  std::memcpy(control.data(), &head, sizeof head);
}

void BulkConnection::Core::drop_acknowledged() {
  while (!unacknowledged.empty() && unacknowledged.front().sequence < acknowledged) {
    if (write_index == 0 && write_begun) return;  // is being written again: first to its end
    Outgoing& frame = unacknowledged.front();
    unacknowledged_bytes -= frame.bytes;
    // Beyond the places a buffer is for once: spare ones of its kind would be taken before places.
    if (frame.buffer.place_ || places.count == 0) spare.push_back(std::move(frame.buffer));
    unacknowledged.pop_front();
    if (write_index > 0) --write_index;
  }
}

void BulkConnection::Core::write_abort(std::unique_lock<std::mutex>& lock, const PeerError& error,
                                       Deadline deadline) {
  const std::string text = std::string(error.what()).substr(0, kAbortTextMax);
  const AbortHead reason{error.peer_rank(), uint32_t(error.kind())};
  std::vector<std::byte> frame(sizeof(WireHead) + sizeof reason + text.size());
  std::memcpy(frame.data() + sizeof(WireHead), &reason, sizeof reason);
  std::memcpy(frame.data() + sizeof(WireHead) + sizeof reason, text.data(), text.size());
  WireHead head;
  head.type = uint8_t(ControlType::abort);
  head.ballot_number = ballot.number;
  head.ballot_leader = ballot.leader;
  head.payload_bytes = uint32_t(sizeof reason + text.size());
  seal(head, std::span(frame).subspan(sizeof head));
  std::memcpy(frame.data(), &head, sizeof head);
  // Nothing but the frame under way goes before it.
  rewind = owes_ack = owes_resend = owes_ask = owes_alive = false;
  unacknowledged.resize(std::min(unacknowledged.size(), write_index + (write_begun ? 1 : 0)));
  abort_frame = std::move(frame);
  for (;;) {
    write_some();
    if (!has_output() || Clock::now() >= deadline) return;
    lock.unlock();
    channel->wait(false, true, deadline);
    lock.lock();
  }
}

}  // namespace troupe::comm
