#include <algorithm>
#include <array>
#include <atomic>
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

constexpr size_t kCandidatesMax = 64;          // dialled and not yet spoken; beyond it the oldest goes
constexpr int64_t kSilentCandidateMs = 5'000;  // before it has said who it is
constexpr int64_t kHandshakeMs = 3'000;        // once it has begun to speak
constexpr int64_t kDialPauseMsMax = 100;

struct Candidate {
  Descriptor socket;
  Clock::time_point since;
};

BulkConnection connection_of(Handshaken done, const BulkSession& session) {
  return BulkConnection(std::make_unique<BulkConnection::Core>(std::move(done.channel), done.peer, session,
                                                               done.purpose, done.transport));
}

}  // namespace

struct BulkListener::Core {
  std::string address;
  Descriptor socket;
  std::shared_ptr<SSL_CTX> tls;
  Wakeup cancelled;
  std::vector<Candidate> candidates;
  std::atomic<uint64_t> refused = 0;

  // Enough has come from it for a handshake without waiting for a dialler who says nothing (with TLS:
  // anything).
  bool has_spoken(int fd) const {
    std::array<char, kHelloBytes> seen;
    const ssize_t bytes = recv(fd, seen.data(), tls ? 1 : seen.size(), MSG_PEEK | MSG_DONTWAIT);
    return tls ? bytes == 1 : bytes == ssize_t(seen.size());
  }
  static bool has_left(int fd) {
    pollfd entry{fd, POLLRDHUP, 0};
    return poll(&entry, 1, 0) > 0 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
  }

  void take_in() {
    for (;;) {
      Descriptor fresh = accept_from(socket.get());
      if (!fresh.valid()) return;
      if (candidates.size() >= kCandidatesMax) drop(0);
      candidates.push_back({std::move(fresh), Clock::now()});
    }
  }
  void drop(size_t index) {
    candidates.erase(candidates.begin() + std::ptrdiff_t(index));
    ++refused;
  }

  // Waits for something to happen. True when accept() was cancelled.
  bool wait(Deadline deadline) {
    std::vector<pollfd> entries{{socket.get(), POLLIN, 0}, {cancelled.fd(), POLLIN, 0}};
    for (const Candidate& candidate : candidates) {
      // One that has sent half of a hello is readable and would end every wait: look at it again a little
      // later.
      std::array<char, 1> seen;
      const bool half = recv(candidate.socket.get(), seen.data(), 1, MSG_PEEK | MSG_DONTWAIT) == 1;
      if (half) deadline = std::min(deadline, deadline_in_ms(20));
      entries.push_back({candidate.socket.get(), short(half ? 0 : POLLIN | POLLRDHUP), 0});
      deadline = std::min(deadline, candidate.since + std::chrono::milliseconds(kSilentCandidateMs));
    }
    poll(entries.data(), entries.size(), milliseconds_until(deadline));
    return (entries[1].revents & POLLIN) != 0;
  }

  std::optional<BulkConnection> try_candidates(const BulkSession& session, std::span<const BulkPeer> peers,
                                               const Patience& patience, std::string& last_refused) {
    for (size_t i = 0; i < candidates.size();) {
      const int fd = candidates[i].socket.get();
      if (!has_spoken(fd)) {
        const bool over = Clock::now() - candidates[i].since >= std::chrono::milliseconds(kSilentCandidateMs);
        if (over || has_left(fd))
          drop(i);
        else
          ++i;
        continue;
      }
      Descriptor spoken = std::move(candidates[i].socket);
      candidates.erase(candidates.begin() + std::ptrdiff_t(i));
      const Patience until = patience.at_most(deadline_in_ms(kHandshakeMs));
      auto channel = tls ? make_tls_channel(std::move(spoken), tls, TlsRole::server, "", until, last_refused)
                         : make_tcp_channel(std::move(spoken));
      auto done =
          channel ? accept_handshake(std::move(channel), session, peers, until, last_refused) : std::nullopt;
      if (done) return connection_of(std::move(*done), session);
      ++refused;
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
    core_->take_in();
    if (auto connection = core_->try_candidates(session, peers, patience, last_refused))
      return std::move(*connection);
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

BulkConnection bulk_connect(const BulkSession& session, const BulkPeer& peer, BulkPurpose purpose,
                            const std::shared_ptr<SSL_CTX>& tls, Deadline deadline) {
  const Patience patience(deadline, session.cancelled);
  std::string why = "no attempt was made";
  Wakeup never;
  for (int64_t pause_ms = 5;; pause_ms = std::min(2 * pause_ms, kDialPauseMsMax)) {
    if (Descriptor socket = connect_to(peer.address, patience, why); socket.valid()) {
      auto channel = tls ? make_tls_channel(std::move(socket), tls, TlsRole::client, peer.name, patience, why)
                         : make_tcp_channel(std::move(socket));
      auto done =
          channel ? dial_handshake(std::move(channel), session, peer, purpose, patience, why) : std::nullopt;
      if (done) return connection_of(std::move(*done), session);
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
