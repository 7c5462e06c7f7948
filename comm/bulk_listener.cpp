#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>

#include "comm/bulk.hpp"
#include "comm/bulk_core.hpp"
#include "comm/bulk_handshake.hpp"
#include "comm/socket.hpp"
#include "comm/tls_channel.hpp"

namespace troupe::comm {
namespace {

constexpr size_t kCandidatesMax = 64;  // who dialled and is not yet let in
constexpr int64_t kCandidateMs = 5'000;
constexpr int64_t kAcceptPauseMs = 20;  // when the system gives no descriptor
constexpr int64_t kDialPauseMsMax = 100;
constexpr int kRefusalsMax = 3;  // in a row, until they count as meant

struct Candidate {
  int fd = -1;  // the handshake's
  AcceptHandshake handshake;
  Deadline deadline;
  bool spoke = false;
};

bool has_spoken(int fd) {
  char first = 0;
  return recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

BulkConnection connection_of(Handshaken done, const BulkSession& session) {
  return BulkConnection(
      std::make_unique<BulkConnection::Core>(std::move(done.channel), done.peer, session, done.transport));
}

}  // namespace

struct BulkListener::Core {
  std::string address;
  Descriptor socket;
  std::shared_ptr<SSL_CTX> tls;
  Wakeup cancelled;
  std::vector<Candidate> candidates;
  std::atomic<uint64_t> refused = 0;
  Deadline accepts_again;

  void take_in(std::string& last_refused) {
    for (size_t i = 0; i < kCandidatesMax; ++i) {
      Descriptor fresh = accept_from(socket.get());
      if (!fresh.valid()) {
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
        last_refused = fmt::format("cannot accept it: {}", std::strerror(errno));
        accepts_again = deadline_in_ms(kAcceptPauseMs);
        return;
      }
      if (candidates.size() >= kCandidatesMax) drop(least_promising());
      const int fd = fresh.get();
      try {
        auto channel = tls ? accept_tls_channel(std::move(fresh), tls) : make_tcp_channel(std::move(fresh));
        candidates.push_back({fd, AcceptHandshake(std::move(channel)), deadline_in_ms(kCandidateMs)});
      } catch (const Error& failure) {  // a channel has a descriptor of its own, which it may not get
        last_refused = failure.what();
        ++refused;
        accepts_again = deadline_in_ms(kAcceptPauseMs);
        return;
      }
      candidates.back().spoke = has_spoken(fd);
    }
  }
  // The oldest that has said nothing, or else the oldest.
  size_t least_promising() const {
    const auto silent = std::find_if(candidates.begin(), candidates.end(),
                                     [](const Candidate& candidate) { return !candidate.spoke; });
    return silent == candidates.end() ? 0 : size_t(silent - candidates.begin());
  }
  void drop(size_t index) {
    candidates.erase(candidates.begin() + std::ptrdiff_t(index));
    ++refused;
  }

  // Waits for something to happen. True when accept() was cancelled.
  bool wait(Deadline deadline) {
    const bool pauses = Clock::now() < accepts_again;  // else who waits to be accepted keeps poll() from it
    if (pauses) deadline = std::min(deadline, accepts_again);
    std::vector<pollfd> entries{{pauses ? -1 : socket.get(), POLLIN, 0}, {cancelled.fd(), POLLIN, 0}};
    for (const Candidate& candidate : candidates) {
      entries.push_back({candidate.fd, POLLIN, 0});
      deadline = std::min(deadline, candidate.deadline);
    }
    poll(entries.data(), entries.size(), milliseconds_until(deadline));
    return (entries[1].revents & POLLIN) != 0;
  }

  // Goes on with all handshakes, and gives the first connection that is ready.
  std::optional<BulkConnection> try_candidates(const BulkSession& session, std::span<const BulkPeer> peers,
                                               std::string& last_refused) {
    using State = AcceptHandshake::State;
    for (size_t i = 0; i < candidates.size();) {
      Candidate& candidate = candidates[i];
      candidate.spoke = candidate.spoke || has_spoken(candidate.fd);
      State state = State::refused;
      try {
        if (!candidate.handshake.belongs_elsewhere(session))
          state = candidate.handshake.step(session, peers, last_refused);
      } catch (const PeerError&) {
        drop(i);
        throw;
      }
      if (state == State::done) {
        Handshaken done = candidate.handshake.take();
        candidates.erase(candidates.begin() + std::ptrdiff_t(i));
        return connection_of(std::move(done), session);
      }
      if (state == State::refused || Clock::now() >= candidate.deadline)
        drop(i);
      else
        ++i;
    }
    return std::nullopt;
  }
};

BulkListener::BulkListener(const BulkListenerOptions& options) : core_(std::make_unique<Core>()) {
  core_->socket = listen_on(options.address, core_->address);
  core_->tls = options.tls;
}
BulkListener::~BulkListener() = default;

std::string BulkListener::address() const {
  return core_->address;
}
void BulkListener::cancel() {
  core_->cancelled.signal();
}
void BulkListener::forget_cancel() {
  core_->cancelled.clear();
}
uint64_t BulkListener::refused() const {
  return core_->refused;
}

BulkConnection BulkListener::accept(const BulkSession& session, std::span<const BulkPeer> peers,
                                    Deadline deadline) {
  const Patience patience(deadline, session.cancelled);
  std::string last_refused;
  for (;;) {
    core_->take_in(last_refused);
    if (auto connection = core_->try_candidates(session, peers, last_refused)) return std::move(*connection);
    if (Clock::now() >= deadline) break;
    const bool cancelled = core_->wait(patience.next_look());
    if (cancelled || patience.cancelled()) {
      if (cancelled) core_->cancelled.clear();
      throw error(ErrorKind::cancelled, "waiting for bulk connections on {} was cancelled", core_->address);
    }
  }
  std::string names;
  for (const BulkPeer& peer : peers) names += (names.empty() ? "" : ", ") + peer.text();
  throw error(ErrorKind::timeout, "none of {} opened a bulk connection to {} in time{}{}", names,
              core_->address, last_refused.empty() ? "" : "; the last one turned away: ", last_refused);
}

namespace {

// One attempt. Empty when another may succeed; `why` says what stood in the way.
std::optional<Handshaken> dial(const BulkSession& session, const BulkPeer& peer,
                               const std::shared_ptr<SSL_CTX>& tls, const Patience& patience,
                               std::string& why) try {
  Descriptor socket = connect_to(peer.address, patience, why);
  if (!socket.valid()) return std::nullopt;
  auto channel = tls ? dial_tls_channel(std::move(socket), tls, peer.name, patience, why)
                     : make_tcp_channel(std::move(socket));
  if (!channel) return std::nullopt;
  return dial_handshake(std::move(channel), session, peer, patience, why);
} catch (const PeerError&) {
  throw;
} catch (const Error& failure) {
  throw PeerError(failure.kind(), peer.rank,
                  fmt::format("cannot open a bulk connection to {}: {}", peer.text(), failure.what()));
}

}  // namespace

BulkConnection bulk_connect(const BulkSession& session, const BulkPeer& peer,
                            const std::shared_ptr<SSL_CTX>& tls, Deadline deadline) {
  const Patience patience(deadline, session.cancelled);
  std::string why = "no attempt was made";
  Wakeup never;
  int refusals = 0;
  for (int64_t pause_ms = 5;; pause_ms = std::min(2 * pause_ms, kDialPauseMsMax)) {
    try {
      if (auto done = dial(session, peer, tls, patience, why))
        return connection_of(std::move(*done), session);
      refusals = 0;
    } catch (const UnprovedRefusal& refusal) {
      if (tls || ++refusals == kRefusalsMax) throw;
      why = refusal.what();
    }
    if (patience.cancelled())
      throw PeerError(ErrorKind::cancelled, peer.rank,
                      fmt::format("connecting to {} was cancelled", peer.text()));
    if (Clock::now() >= deadline)
      throw PeerError(ErrorKind::timeout, peer.rank,
                      fmt::format("cannot open a bulk connection to {}: {}", peer.text(), why));
    wait_readable(never.fd(), patience.at_most(deadline_in_ms(pause_ms)).next_look());
  }
}

}  // namespace troupe::comm
