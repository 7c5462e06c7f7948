#include "comm/link_stream.hpp"

#include <utility>

#include "comm/link_checksum.hpp"

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

namespace troupe::comm {

namespace {
constexpr size_t kMessageOverheadBytes = 64;  // so that a queue of very small messages is bounded too
// gRPC hands a stream from the thread that makes it to those that call it back, and on to the one that
// destroys it. The thread sanitizer cannot see how, since gRPC is built without it; so it is told.
void hand_over([[maybe_unused]] void* stream) {
#ifdef __SANITIZE_THREAD__
  __tsan_release(stream);
#endif
}
void take_over([[maybe_unused]] void* stream) {
#ifdef __SANITIZE_THREAD__
  __tsan_acquire(stream);
#endif
}
}  // namespace

LinkStream::LinkStream() {
  hand_over(this);
}
LinkStream::~LinkStream() {
  take_over(this);
}

void LinkStream::start(std::shared_ptr<Owner> owner) {
  const std::lock_guard lock(mutex_);
  owner_ = std::move(owner);
  self_ = shared_from_this();
  start_call();
}

Sent LinkStream::send(std::string bytes, size_t queue_bytes_max) {
  const std::lock_guard lock(mutex_);
  if (state_ != State::open) return Sent::down;
  const size_t cost = bytes.size() + kMessageOverheadBytes;
  if (queued_bytes_ + cost > queue_bytes_max) return Sent::busy;
  queued_bytes_ += cost;
  append_checksum(bytes, sent_++);
  queue_.push_back(std::move(bytes));
  if (!writing_) write_next();
  return Sent::ok;
}

bool LinkStream::idle() const {
  const std::lock_guard lock(mutex_);
  return queue_.empty() && !writing_;
}

void LinkStream::read_next() {
  const std::lock_guard lock(mutex_);
  if (state_ == State::cancelled || state_ == State::done) return;
  if (!writes_ended_ || reactions_ > 0) return start_read();
  // Nothing holds the call any more: gRPC may be done with it, and a read would be of a call that is gone.
  if (!ours_) ours_ = StreamEnd{StreamEnd::Cause::closed, ErrorKind::peer_lost, ""};
  state_ = State::cancelled;
  end_at_once();
}

void LinkStream::write_next() {
  writing_ = true;
  writing_bytes_ = queue_.front().size() - kLinkChecksumBytes + kMessageOverheadBytes;
  start_write(std::move(queue_.front()));
  queue_.pop_front();
}

void LinkStream::drop_queue() {
  queue_.clear();
  queued_bytes_ = writing_ ? writing_bytes_ : 0;
}

void LinkStream::finish() {
  const std::lock_guard lock(mutex_);
  if (state_ != State::open) return;
  state_ = State::finishing;
  if (writing_) return;
  writes_ended_ = true;
  end_writes();
}

void LinkStream::refuse(const Error& why) {
  const std::lock_guard lock(mutex_);
  if (state_ == State::cancelled || state_ == State::done) return;
  if (!ours_) ours_ = StreamEnd{StreamEnd::Cause::ours, why.kind(), why.what()};
  drop_queue();
  const bool too_late = writes_ended_;  // to tell the other end
  state_ = too_late ? State::cancelled : State::finishing;
  if (too_late) return end_at_once();
  writes_ended_ = true;
  end_refusing(why);
}

void LinkStream::cancel(const Error& why) {
  const std::lock_guard lock(mutex_);
  if (state_ == State::cancelled || state_ == State::done) return;
  if (!ours_) ours_ = StreamEnd{StreamEnd::Cause::ours, why.kind(), why.what()};
  drop_queue();
  state_ = State::cancelled;
  end_at_once();
}

void LinkStream::on_read(bool ok, std::string_view bytes) {
  take_over(this);
  if (ok) {
    Owner* owner = nullptr;  // stays: on_done, which drops it, comes after all other reactions
    uint64_t sequence = 0;
    {
      const std::lock_guard lock(mutex_);
      owner = owner_.get();
      sequence = received_++;
      ++reactions_;
    }
    const auto message = strip_checksum(bytes, sequence);
    message ? owner->received(*message) : owner->received_damaged();
    const std::lock_guard lock(mutex_);
    --reactions_;
    return;
  }
  finish();  // the other end is done, or gone: then the next write fails
}

void LinkStream::on_written(bool ok) {
  take_over(this);
  const std::lock_guard lock(mutex_);
  writing_ = false;
  queued_bytes_ -= writing_bytes_;
  if (!ok) drop_queue();
  if (state_ == State::cancelled || state_ == State::done || writes_ended_) return;
  if (!queue_.empty()) return write_next();
  if (state_ != State::finishing) return;
  writes_ended_ = true;
  end_writes();
}

void LinkStream::on_done(StreamEnd end) {
  take_over(this);
  std::shared_ptr<Owner> owner;
  std::shared_ptr<LinkStream> self;
  {
    const std::lock_guard lock(mutex_);
    state_ = State::done;
    writing_ = false;
    drop_queue();
    if (ours_) end = *ours_;
    owner = std::move(owner_);
    self = std::move(self_);
  }
  hand_over(this);
  owner->ended(end);
}

StreamGrave::~StreamGrave() {
  for (auto& stream : dead_) (void)stream.release();
}

std::shared_ptr<LinkStream> StreamGrave::keep(std::unique_ptr<LinkStream> stream) {
  const std::lock_guard lock(mutex_);
  ++alive_;
  return {stream.release(), [grave = shared_from_this()](LinkStream* dead) {
            const std::lock_guard burial(grave->mutex_);
            grave->dead_.emplace_back(dead);
            --grave->alive_;
            grave->changed_.notify_all();
          }};
}

bool StreamGrave::wait_for_all(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline, [this] { return alive_ == 0; });
}

void StreamGrave::clear() {
  std::vector<std::unique_ptr<LinkStream>> dead;  // destroyed after the lock
  const std::lock_guard lock(mutex_);
  dead.swap(dead_);
}

}  // namespace troupe::comm
