// What time brings to the hub: signs of life, the end of patience, and the next attempt to dial.
#include <algorithm>

#include "comm/link_hub.hpp"

namespace troupe::comm {

namespace {
using Stage = LinkSession::Stage;
using std::chrono::milliseconds;
}  // namespace

void LinkHub::Core::run_timer() {
  const milliseconds tick(std::max(5, options_.interval_ms / 4));
  auto planned = LinkClock::now();
  std::unique_lock lock(mutex_);
  while (!closing_) {
    const auto now = LinkClock::now();
    // When this very process was stopped, nobody can be blamed for the silence.
    if (now - planned > milliseconds(options_.patience_ms / 2))
      for (const SessionPointer& session : sessions_) session->heard_ = now.time_since_epoch().count();
    const auto next_dial = start_due_dials(now);
    std::vector<SessionPointer> sessions(sessions_.begin(), sessions_.end());
    lock.unlock();
    for (const SessionPointer& session : sessions) check_session(session, now);
    sessions.clear();
    grave_->clear();
    lock.lock();
    planned = std::min(next_dial, now + tick);
    if (!closing_) changed_.wait_until(lock, planned);
  }
}

void LinkHub::Core::check_session(const SessionPointer& session, LinkClock::time_point now) {
  const milliseconds patience(options_.patience_ms);
  const auto silent = now - LinkClock::time_point(LinkClock::duration(session->heard_.load()));
  const auto ms = [](LinkClock::duration time) {
    return std::chrono::duration_cast<milliseconds>(time).count();
  };
  const milliseconds until_dialled(dial_ms_max(options_.patience_ms));
  switch (session->stage_) {
    case Stage::greeting:
      if (now - session->started_ <= (session->dialled_.empty() ? patience : until_dialled)) return;
      return session->stream_->cancel(
          session->dialled_.empty()
              ? error(ErrorKind::timeout, "a peer connected and said nothing for {} ms", ms(patience))
              : error(ErrorKind::timeout, "'{}' at {} did not answer within {} ms", session->dialled_,
                      session->address_, ms(until_dialled)));
    case Stage::refused:
      if (silent > patience) session->stream_->cancel(error(ErrorKind::timeout, "a refused peer stays"));
      return;
    case Stage::waiting:
    case Stage::rising:
      return;
    case Stage::up:
      break;
  }
  if (silent > patience)
    return session->stream_->cancel(error(ErrorKind::timeout,
                                          "'{}' was silent for {} ms, longer than the {} ms that "
                                          "the cluster waits",
                                          session->peer_.node, ms(silent), ms(patience)));
  if (now - session->sent_ < milliseconds(options_.interval_ms)) return;
  session->sent_ = now;
  if (session->stream_->idle()) session->stream_->send({}, options_.queue_bytes_max);
}

// Returns when the next dial is due. A node that has linked with us by itself is not dialled. REQUIRES the
// lock.
LinkClock::time_point LinkHub::Core::start_due_dials(LinkClock::time_point now) {
  auto next = LinkClock::time_point::max();
  for (auto& [node, entry] : dials_) {
    if (entry.attempt) continue;
    const auto peer = peers_.find(node);
    if (peer != peers_.end() && peer->second.current) continue;
    if (entry.next <= now)
      start_attempt(node, entry);
    else
      next = std::min(next, entry.next);
  }
  return next;
}

}  // namespace troupe::comm
