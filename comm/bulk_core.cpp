#include "comm/bulk_core.hpp"

#include <algorithm>
#include <utility>

namespace troupe::comm {
namespace {

constexpr size_t kInputBytes = sizeof(WireHead) + kSlotWordsMax * sizeof(uint64_t) + kFrameBytesMax;
constexpr size_t kReadAhead = 4096;  // beyond the frame being read: control frames and the next head
}  // namespace

BulkConnection::Core::Core(std::unique_ptr<ByteChannel> bytes, const BulkPeer& who,
                           const BulkSession& session, Transport negotiated)
    : peer(who),
      ballot(session.ballot),
      transport(negotiated),
      silence_max(std::max(session.silence_ms_max, 8)),
      window_bytes(session.window_bytes),
      channel(std::move(bytes)),
      places(channel->shared_places()),
      input(kInputBytes + kReadAhead),
      ready(input.size()) {
  for (size_t i = places.count; i-- > 0;) {
    FrameBuffer buffer;
    buffer.place_.reset(places.own + i * kPlaceBytes);
    spare.push_back(std::move(buffer));
  }
}

void BulkConnection::Core::fail(ErrorKind kind, const std::string& what) {
  if (!failure) failure = PeerError(kind, peer.rank, what);
  changed.notify_all();
}

bool BulkConnection::Core::has_output() const {
  return !write_failed && (!control.empty() || owes_ack || owes_resend || owes_ask || owes_alive || rewind ||
                           !abort_frame.empty() || write_index < unacknowledged.size());
}

void BulkConnection::Core::progress() {
  read_some();
  write_some();
}

// One that waits for an acknowledgement asks again: the first question or its answer may have been damaged.
void BulkConnection::Core::show_life() {
  (unacknowledged.empty() ? owes_alive : owes_ask) = true;
}

void BulkConnection::Core::wait_once(std::unique_lock<std::mutex>& lock, Deadline until) {
  if (Clock::now() - last_write >= silence_max / 4) {
    show_life();
    write_some();
  }
  const bool reads = wants_input() && !read_polled, writes = has_output();
  if (!reads && !writes) {
    changed.wait_until(lock, until);
    return;
  }
  if (reads) read_polled = true;
  lock.unlock();
  channel->wait(reads, writes, until);
  lock.lock();
  if (reads) read_polled = false;
  changed.notify_all();
}

void BulkConnection::Core::throw_timeout(const char* what, bool silent, Clock::duration waited) const {
  const double seconds =
      std::chrono::duration<double>(silent ? Clock::duration(silence_max) : waited).count();
  throw PeerError(ErrorKind::timeout, peer.rank,
                  silent ? fmt::format("{}: no sign of life for {:.1f} s while waiting for {}", peer.text(),
                                       seconds, what)
                         : fmt::format("{}: waited {:.1f} s in vain for {}", peer.text(), seconds, what));
}

// --- reading ---

void BulkConnection::Core::read_some() {
  if (read_polled) return;
  while (wants_input() && !failure) {
    if (parse_some()) continue;
    if (input_blocked) return;
    size_t wanted = sizeof(WireHead);
    if (WireHead head; input_end - input_begin >= sizeof head) {
      std::memcpy(&head, input.data() + input_begin, sizeof head);
      wanted = head.stream_bytes();
    }
    make_room(wanted);
    const size_t limit = std::min(input.size() - input_end, wanted - (input_end - input_begin) + kReadAhead);
    const Moved moved = channel->read({input.data() + input_end, limit});
    input_end += moved.bytes;
    if (moved.bytes > 0) ++heard;
    if (moved.closed) fail(ErrorKind::peer_lost, fmt::format("lost {}: {}", peer.text(), moved.why));
    if (moved.bytes == 0) return;
  }
}

void BulkConnection::Core::make_room(size_t bytes) {
  if (input_begin == input_end) input_begin = input_end = 0;
  if (input_begin == 0 || input_begin + bytes + kReadAhead <= input.size()) return;
  std::memmove(input.data(), input.data() + input_begin, input_end - input_begin);
  input_end -= input_begin;
  input_begin = 0;
}

// Takes one step through the input; false when it needs more bytes.
bool BulkConnection::Core::parse_some() {
  const std::span<const std::byte> bytes(input.data() + input_begin, input_end - input_begin);
  WireHead head;
  if (bytes.size() < sizeof head) return false;
  std::memcpy(&head, bytes.data(), sizeof head);
  if (!head_is_intact(head)) {
    if (!std::exchange(searching_head, true)) note_unknown_damage();
    input_begin += next_head_candidate(bytes);
    return true;
  }
  searching_head = false;
  if (bytes.size() < head.stream_bytes()) return false;
  if (head.is_data() && head.sequence == expected && frame_ready) {
    input_blocked = true;
    return false;
  }
  const std::byte* body = bytes.data() + sizeof head;
  input_begin += head.stream_bytes();
  if (head.is_in_place()) body = body_in_place(head, body);
  if (body == nullptr) return true;
  if (!body_is_intact(head, {body, head.body_bytes()}))
    head.is_data() ? miss_frame(head.sequence) : note_unknown_damage();
  else if (head.is_data())
    take_data(head, body);
  else
    take_control(head, {body, head.body_bytes()});
  return true;
}

// The body whose place has its number at `reference`.
const std::byte* BulkConnection::Core::body_in_place(const WireHead& head, const std::byte* reference) {
  uint64_t place = 0;
  std::memcpy(&place, reference, sizeof place);
  if (place < places.count)
    return places.peers + place * kPlaceBytes + FrameBuffer::kHeadRoom - head.slot_words * sizeof(uint64_t);
  fail(ErrorKind::protocol,
       fmt::format("{} sent a frame in place {} of {} in shared memory", peer.text(), place, places.count));
  return nullptr;
}

void BulkConnection::Core::take_data(const WireHead& head, const std::byte* body) {
  if (head.sequence != expected) {
    if (head.sequence < expected && (head.flags & kWantsAck) != 0) owes_ack = true;
    return miss_frame(head.sequence);
  }
  if (BulkBallot{head.ballot_number, head.ballot_leader} != ballot)
    return fail(
        ErrorKind::protocol,
        fmt::format("{} sent a frame of ballot ({}, {}) on a connection of ballot ({}, {})", peer.text(),
                    head.ballot_number, head.ballot_leader, ballot.number, ballot.leader));
  ++expected;
  note_intact();
  resend_asked = false;
  if ((head.flags & kWantsAck) != 0) owes_ack = true;
  ready_head = head;
  ready_body = body;
  frame_ready = true;
  if (head.is_in_place()) return;
  // The frame stays where it is; what follows it (never more than kReadAhead) moves to the other buffer.
  ready.swap(input);
  std::memcpy(input.data(), ready.data() + input_begin, input_end - input_begin);
  input_end -= input_begin;
  input_begin = 0;
}

// Data frame `sequence` came damaged, or before the one that is expected.
void BulkConnection::Core::miss_frame(uint64_t sequence) {
  // Those that were under way when the resend was asked for must come again anyway, and say nothing about it.
  const bool under_way = resend_asked && sequence > expected;
  if (sequence >= expected && !under_way) note_damage();
}

// Nobody knows which frame it was. If it was the resend, its successors tell, or a sign of life. If it was a
// question or an answer about acknowledgements, it is answered or asked again.
void BulkConnection::Core::note_unknown_damage() {
  owes_ack = true;
  if (!unacknowledged.empty()) owes_ask = true;
  if (!resend_asked || Clock::now() - asked_at >= silence_max / 2) note_damage();
}

void BulkConnection::Core::note_damage() {
  const auto now = Clock::now();
  if (damaged_in_a_row++ > 0) damaged_for += std::min<Clock::duration>(now - asked_at, silence_max / kTicks);
  asked_at = now;
  resend_asked = owes_resend = true;
  ++resends_asked;
  if (!unacknowledged.empty()) owes_ask = true;
  if (damaged_for >= silence_max)
    fail(ErrorKind::corrupt,
         fmt::format(
             "frame {} from {} arrived damaged {} times in a row, for {:.1f} s; the path to it alters "
             "data (bad memory, network card or proxy)",
             expected, peer.text(), damaged_in_a_row, std::chrono::duration<double>(damaged_for).count()));
}

void BulkConnection::Core::note_intact() {
  damaged_in_a_row = 0;
  damaged_for = {};
}

void BulkConnection::Core::take_control(const WireHead& head, std::span<const std::byte> payload) {
  switch (ControlType(head.type)) {
    case ControlType::ack:
      return take_acknowledgement(head);
    case ControlType::resend:
      take_acknowledgement(head);
      rewind = owes_ask = true;  // the answer to an earlier question may have been this one
      return;
    case ControlType::ask_ack:  // comes after all frames written so far, unlike a sign of life
      owes_ack = true;
      if (head.sequence <= expected) note_intact();
      [[fallthrough]];
    case ControlType::alive:  // frames keep their order: what it counts as written should have been here
                              // before it
      resend_asked = head.sequence > expected;
      owes_resend |= resend_asked;
      return;
    case ControlType::abort:
      return take_abort(payload);
  }
  fail(ErrorKind::protocol,
       fmt::format("{} sent a control frame of unknown type {}", peer.text(), head.type));
}

void BulkConnection::Core::take_acknowledgement(const WireHead& head) {
  const uint64_t next = head.sequence, in_use = head.bucket;
  if (next > next_sequence || in_use > next)
    return fail(ErrorKind::protocol, fmt::format("{} acknowledged frame {} of {}, but for {}", peer.text(),
                                                 next, next_sequence, in_use));
  acknowledged = std::max(acknowledged, next - in_use);
  drop_acknowledged();
}

void BulkConnection::Core::take_abort(std::span<const std::byte> payload) {
  AbortHead head;
  if (payload.size() < sizeof head) return fail(ErrorKind::protocol, peer.text() + " ended without a reason");
  std::memcpy(&head, payload.data(), sizeof head);
  const auto text = payload.subspan(sizeof head, std::min(payload.size() - sizeof head, kAbortTextMax));
  const std::string_view said(reinterpret_cast<const char*>(text.data()), text.size());
  const bool known = head.kind >= uint32_t(ErrorKind::usage) && head.kind <= uint32_t(ErrorKind::cancelled);
  const bool passed_on = said.find(" reports: ") != said.npos;  // name who noticed, not all who told
  if (!failure)
    failure = PeerError(known ? ErrorKind(head.kind) : ErrorKind::protocol, head.rank,
                        passed_on ? std::string(said) : fmt::format("{} reports: {}", peer.text(), said));
  changed.notify_all();
}

void BulkConnection::Core::release_frame() {
  if (!handed_out) return;
  handed_out = frame_ready = input_blocked = false;
  if (std::exchange(answered_early, false)) owes_ack = true;
  changed.notify_all();
}

}  // namespace troupe::comm
