// What streams report to the hub: new ones, their bytes, and their end.
#include <algorithm>

#include "comm/link_hello.hpp"
#include "comm/link_hub.hpp"
#include "comm/messages.hpp"

namespace troupe::comm {

namespace {
using Stage = LinkSession::Stage;

constexpr size_t kGreetingMax = 256;  // streams that have not said hello, at a time
constexpr size_t kPeersMax = wire::kRanksMax;
constexpr size_t kRetiredMax = 16;  // incarnations remembered for each node
constexpr int kRefusalsToldPerSecond = 10;
constexpr int kPauseMsMin = 50;  // between attempts to dial, doubling
constexpr int kPauseMsMax = 400;

// REQUIRES the hub's lock.
std::string describe(const LinkSession& session) {
  if (session.dialled_ == kAnyNode) return fmt::format("a node at {}", session.address_);
  if (!session.dialled_.empty()) return fmt::format("'{}' at {}", session.dialled_, session.address_);
  if (!session.peer_.node.empty()) return fmt::format("'{}'", session.peer_.node);
  return "a peer that gave no name";
}
}  // namespace

std::shared_ptr<LinkStream::Owner> LinkHub::Core::accept(const std::shared_ptr<LinkStream>& stream) {
  const std::lock_guard lock(mutex_);
  const auto greeting = std::count_if(sessions_.begin(), sessions_.end(), [](const SessionPointer& each) {
    return each->dialled_.empty() && each->stage_ == Stage::greeting;
  });
  if (closing_ || size_t(greeting) >= kGreetingMax) return nullptr;
  auto session = std::make_shared<LinkSession>(shared_from_this(), stream, "", "");
  sessions_.insert(session);
  return session;
}

void LinkHub::Core::received(LinkSession& session, std::string_view bytes) {
  session.heard_ = LinkClock::now().time_since_epoch().count();
  if (session.stage_ == Stage::greeting) return greet(session, bytes);
  if (session.stage_ != Stage::up) return;
  wire::Envelope envelope;
  if (const auto wrong = wire::decode(bytes, envelope))
    return turn_away(session, error(ErrorKind::protocol, "'{}' sent {}", session.peer_.node, *wrong));
  if (envelope.has_hello())
    return turn_away(session, error(ErrorKind::protocol, "'{}' said hello twice", session.peer_.node));
  if (envelope.body_case() != wire::Envelope::BODY_NOT_SET)
    events_.message(session.peer_, std::move(envelope));
  session.stream_->read_next();
}

void LinkHub::Core::received_damaged(LinkSession& session) {
  if (session.stage_ == Stage::refused) return;
  std::string who;
  {
    const std::lock_guard lock(mutex_);
    who = describe(session);
  }
  turn_away(session,
            error(ErrorKind::corrupt,
                  "a message of {} arrived damaged, or one before it was lost: the path to it alters "
                  "data (bad memory, network card or proxy), or it runs another version of troupe",
                  who));
}

void LinkHub::Core::greet(LinkSession& session, std::string_view bytes) {
  if (bytes.size() > kHelloBytesMax)
    return turn_away(session, error(ErrorKind::protocol, "{} bytes came before a hello", bytes.size()));
  wire::Envelope envelope;
  if (const auto wrong = wire::decode(bytes, envelope))
    return turn_away(session, error(ErrorKind::protocol, "instead of a hello came {}", *wrong));
  const HelloCheck check{session.dialled_, settings_.credentials.has_value(), session.stream_->peer_names()};
  if (const auto wrong = check_hello(envelope, options_, check)) return turn_away(session, *wrong);

  const auto& hello = envelope.hello();
  const SessionPointer self = session.shared_from_this();
  std::optional<Error> refused;
  bool rises = false;  // now, and not when whose place it takes has ended: that is told by others
  {
    const std::lock_guard lock(mutex_);
    session.peer_ = {hello.node(), hello.incarnation(), is_client_name(hello.node())};
    refused = admit(self);
    rises = session.stage_ == Stage::rising;
  }
  if (refused) return turn_away(session, *refused);
  if (rises) raise(self);
}

// Gives the session its node's place, or has it wait for the one that holds it. REQUIRES the lock.
std::optional<Error> LinkHub::Core::admit(const SessionPointer& session) {
  const LinkPeer& who = session->peer_;
  if (closing_) return Error(ErrorKind::cancelled, "this node is closing its links");
  const auto linked = [](const auto& entry) { return entry.second.current != nullptr; };
  if (who.client && !peers_.contains(who.node)) {
    const auto clients = std::count_if(peers_.begin(), peers_.end(), [&](const auto& entry) {
      return linked(entry) && entry.second.current->peer_.client;
    });
    if (clients >= options_.clients_max)
      return error(ErrorKind::cancelled, "'{}' serves {} clients already", options_.node, clients);
  }
  if (!peers_.contains(who.node) && peers_.size() >= kPeersMax) {
    const auto idle = std::find_if_not(peers_.begin(), peers_.end(), linked);
    if (idle == peers_.end())
      return error(ErrorKind::cancelled, "'{}' has {} links already", options_.node, kPeersMax);
    peers_.erase(idle);
  }
  Peer& peer = peers_[who.node];
  if (auto refused = fence(peer, who.node, who.incarnation)) return refused;
  if (peer.current && crosses(*peer.current, *session))
    return error(ErrorKind::cancelled, "'{}' is linked already: both have dialled", who.node);
  if (peer.current) {
    if (peer.waiting) peer.waiting->stream_->cancel(error(ErrorKind::cancelled, "a newer stream came"));
    peer.waiting = session;
    session->stage_ = Stage::waiting;
    peer.current->stream_->cancel(error(ErrorKind::peer_lost, "'{}' linked anew", who.node));
    return std::nullopt;
  }
  peer.current = session;
  session->stage_ = Stage::rising;
  if (session->dialled_.empty()) session->stream_->send(hello_, options_.queue_bytes_max);
  return std::nullopt;
}

// Two nodes that know each other's address may dial at the same time. Both ends keep the stream that the
// lower name dialled, or they would end each other's. REQUIRES the lock.
bool LinkHub::Core::crosses(const LinkSession& current, const LinkSession& later) const {
  const bool both_dialled = current.dialled_.empty() != later.dialled_.empty();
  const bool same = current.peer_.incarnation == later.peer_.incarnation;
  const bool ours_stays = options_.node < later.peer_.node;
  return both_dialled && same && !later.dialled_.empty() != ours_stays;
}

// A node has one living incarnation: the newest we met. Those before it are never let in again. REQUIRES the
// lock.
std::optional<Error> LinkHub::Core::fence(Peer& peer, const std::string& node,
                                          const std::string& incarnation) {
  if (peer.incarnation == incarnation) return std::nullopt;
  if (std::find(peer.retired.begin(), peer.retired.end(), incarnation) != peer.retired.end())
    return error(ErrorKind::peer_lost, "this process of '{}' {}: end it", node, kReplaced);
  if (!peer.incarnation.empty()) peer.retired.push_back(peer.incarnation);
  if (peer.retired.size() > kRetiredMax) peer.retired.pop_front();
  peer.incarnation = incarnation;
  return std::nullopt;
}

// Tells `up`, and only then lets messages come. Without the lock.
void LinkHub::Core::raise(const SessionPointer& session) {
  events_.up(session->peer_);
  std::optional<StreamEnd> ended;
  {
    const std::lock_guard lock(mutex_);
    session->stage_ = Stage::up;
    ended = std::move(session->ended_while_rising_);
    if (const auto dialled = dials_.find(session->dialled_); dialled != dials_.end())
      dialled->second.told.clear();
  }
  if (ended) return bury(session, *ended);
  session->stream_->read_next();
}

void LinkHub::Core::turn_away(LinkSession& session, const Error& why) {
  bool tell = false;
  {
    const std::lock_guard lock(mutex_);
    tell = session.dialled_.empty() && session.stage_ == Stage::greeting && events_.refused;
    session.stage_ = Stage::refused;
    const auto now = LinkClock::now();
    if (now - refusals_since_ > std::chrono::seconds(1)) {
      refusals_since_ = now;
      refusals_ = 0;
    }
    tell = tell && ++refusals_ <= kRefusalsToldPerSecond;
  }
  if (tell) events_.refused(why);
  session.stream_->refuse(why);
}

void LinkHub::Core::ended(const SessionPointer& session, const StreamEnd& end) {
  {
    const std::lock_guard lock(mutex_);
    if (session->stage_ == Stage::rising) {
      session->ended_while_rising_ = end;
      return;
    }
  }
  bury(session, end);
}

// The session's place stays taken until its `down` has been told; then whoever waits for it rises.
void LinkHub::Core::bury(const SessionPointer& session, const StreamEnd& end) {
  const Error why = reason(*session, end);
  const auto holds_place = [&] {
    const auto peer = peers_.find(session->peer_.node);
    return peer != peers_.end() && peer->second.current == session;
  };
  std::unique_lock lock(mutex_);
  const bool was_up = holds_place();
  lock.unlock();
  if (was_up)
    events_.down(session->peer_, why);
  else if (!session->dialled_.empty())
    tell_failed_dial(*session, why);

  lock.lock();
  SessionPointer heir;
  if (const auto found = peers_.find(session->peer_.node); found != peers_.end()) {
    Peer& peer = found->second;
    if (peer.waiting == session) peer.waiting = nullptr;
    if (was_up) peer.current = nullptr;
    if (!peer.current && peer.waiting && !closing_) {
      heir = peer.current = std::exchange(peer.waiting, nullptr);
      heir->stage_ = Stage::rising;
      if (heir->dialled_.empty()) heir->stream_->send(hello_, options_.queue_bytes_max);
    }
    if (!peer.current && !peer.waiting && session->peer_.client) peers_.erase(found);
  }
  if (const auto found = dials_.find(session->dialled_);
      found != dials_.end() && found->second.attempt == session) {
    Dial& entry = found->second;
    entry.attempt = nullptr;
    entry.pause_ms = was_up ? kPauseMsMin : std::clamp(2 * entry.pause_ms, kPauseMsMin, kPauseMsMax);
    entry.next = LinkClock::now() + std::chrono::milliseconds(entry.pause_ms);
  }
  sessions_.erase(session);
  changed_.notify_all();
  lock.unlock();
  if (heir) raise(heir);
}

Error LinkHub::Core::reason(const LinkSession& session, const StreamEnd& end) const {
  const std::lock_guard lock(mutex_);
  const std::string who = describe(session);
  const bool linked = session.stage_ == Stage::up;
  switch (end.cause) {
    case StreamEnd::Cause::ours:
      return Error(end.kind, end.detail);
    case StreamEnd::Cause::refused:
      return error(end.kind, "{} refused the link: {}", who, end.detail);
    case StreamEnd::Cause::closed:
      if (closing_) return error(ErrorKind::cancelled, "this node closed the link with {}", who);
      return error(ErrorKind::peer_lost, "{} {}", who, kClosed);
    case StreamEnd::Cause::lost:
      break;
  }
  if (linked) return error(ErrorKind::peer_lost, "lost the link with {}: {}", who, end.detail);
  const std::string_view hint =
      end.detail.find("refused") != std::string::npos ? ""
      : settings_.credentials
          ? " (this node uses certificates: does that one, and are they of one authority?)"
          : " (this node uses no certificates: does that one?)";
  return error(end.kind, "cannot reach {}: {}{}", who, end.detail, hint);
}

void LinkHub::Core::tell_failed_dial(LinkSession& session, const Error& why) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = dials_.find(session.dialled_);
    const auto peer = peers_.find(session.dialled_);
    const bool linked = peer != peers_.end() && peer->second.current;  // it has dialled itself
    if (found == dials_.end() || found->second.attempt.get() != &session ||
        found->second.told == why.what() || linked)
      return;
    found->second.told = why.what();
  }
  events_.down({session.dialled_, "", false}, why);
}

}  // namespace troupe::comm
