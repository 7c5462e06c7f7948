#include "comm/bulk_handshake.hpp"

#include <algorithm>

#include "comm/handshake_exchange.hpp"
#include "comm/shm_channel.hpp"

namespace troupe::comm {
namespace {

constexpr std::array<char, 8> kHelloMagic{'T', 'R', 'P', 'B', 'U', 'L', 'K', '1'};
constexpr size_t kHostIdBytesMax = 152;

struct Hello {
  std::array<char, 8> magic = kHelloMagic;
  uint64_t ballot_number = 0;
  uint32_t ballot_leader = 0;
  uint32_t from = 0;
  uint32_t to = 0;
  uint8_t purpose = 0;
  uint8_t transport = 0;
  uint16_t host_id_bytes = 0;
  std::array<uint8_t, 32> job{};
  std::array<uint8_t, 32> nonce{};
  std::array<char, 152> host_id{};
  uint64_t reserved = 0;
};
static_assert(sizeof(Hello) == kHelloBytes);

enum class Verdict : uint8_t {
  welcome = 1,
  later,
  old_ballot,
  other_job,
  not_a_member,
  other_name,
  no_shared_memory
};

struct Challenge {
  uint8_t verdict = 0;
  std::array<uint8_t, 7> reserved{};
  std::array<uint8_t, 32> nonce{};
};
struct Offer {
  uint64_t shared = 0;  // 0: the connection stays as it is
  ShmOffer memory;
};
struct Answer {
  uint64_t opened = 0;
};

std::string_view host_of(const Hello& hello) {
  return {hello.host_id.data(), std::min<size_t>(hello.host_id_bytes, hello.host_id.size())};
}

Hello make_hello(const BulkSession& session, const BulkPeer& peer, BulkPurpose purpose) {
  TROUPE_CHECK(session.host_id.size() <= kHostIdBytesMax, "a host id of {} bytes", session.host_id.size());
  Hello hello;
  hello.ballot_number = session.ballot.number;
  hello.ballot_leader = session.ballot.leader;
  hello.from = session.rank;
  hello.to = peer.rank;
  hello.purpose = uint8_t(purpose);
  hello.transport = uint8_t(session.transport);
  hello.job = session.job;
  hello.nonce = random_bytes();
  hello.host_id_bytes = uint16_t(session.host_id.size());
  std::copy(session.host_id.begin(), session.host_id.end(), hello.host_id.begin());
  return hello;
}

bool may_share(const Hello& hello, const BulkSession& session) {
  return Transport(hello.transport) != Transport::tcp && session.transport != Transport::tcp &&
         !session.host_id.empty() && host_of(hello) == session.host_id;
}

bool shm_demanded(const Hello& hello, const BulkSession& session) {
  return Transport(hello.transport) == Transport::shm || session.transport == Transport::shm;
}

Verdict judge(const Hello& hello, const BulkSession& session, const BulkPeer* peer,
              const ByteChannel& channel) {
  const BulkBallot ballot{hello.ballot_number, hello.ballot_leader};
  if (hello.job != session.job) return Verdict::other_job;
  if (ballot > session.ballot) return Verdict::later;
  if (ballot < session.ballot) return Verdict::old_ballot;
  const bool known_purpose =
      hello.purpose >= uint8_t(BulkPurpose::ring) && hello.purpose <= uint8_t(BulkPurpose::fetch);
  if (peer == nullptr || hello.to != session.rank || !known_purpose) return Verdict::not_a_member;
  if (!channel.peer_carries(peer->name)) return Verdict::other_name;
  if (shm_demanded(hello, session) && !may_share(hello, session)) return Verdict::no_shared_memory;
  return Verdict::welcome;
}

PeerError no_shared_memory(const BulkPeer& peer, std::string_view why) {
  return PeerError(
      ErrorKind::usage, peer.rank,
      fmt::format("cannot share memory with {}: {}; the transport 'shm' needs all nodes on one machine, "
                  "under one user and in one container; 'auto' falls back to tcp",
                  peer.text(), why));
}

// Throws what a verdict other than welcome and later means to the dialler.
[[noreturn]] void throw_refused(Verdict verdict, const BulkPeer& peer) {
  switch (verdict) {
    case Verdict::old_ballot:
      throw PeerError(ErrorKind::protocol, peer.rank, peer.text() + " refused us: it is in a later ballot");
    case Verdict::other_job:
      throw PeerError(ErrorKind::protocol, peer.rank, peer.text() + " refused us: it works on another job");
    case Verdict::not_a_member:
      throw PeerError(
          ErrorKind::security, peer.rank,
          peer.text() + " refused us: we are no member whom it expects; do both have the same cluster file?");
    case Verdict::other_name:
      throw PeerError(
          ErrorKind::security, peer.rank,
          peer.text() + " refused us: our certificate does not carry our name in the cluster file");
    case Verdict::no_shared_memory:
      throw no_shared_memory(peer, "it runs elsewhere, or demands another transport");
    default:
      throw PeerError(ErrorKind::protocol, peer.rank, peer.text() + " gave an answer that no node gives");
  }
}

}  // namespace

std::optional<Handshaken> dial_handshake(std::unique_ptr<ByteChannel> channel, const BulkSession& session,
                                         const BulkPeer& peer, BulkPurpose purpose, const Patience& patience,
                                         std::string& why) try {
  HandshakeExchange exchange(*channel, session.key, patience);
  exchange.send(make_hello(session, peer, purpose));
  const auto challenge = exchange.receive<Challenge>();
  if (Verdict(challenge.verdict) == Verdict::later) {
    why = "it has not reached our ballot yet";
    return std::nullopt;
  }
  if (Verdict(challenge.verdict) != Verdict::welcome) throw_refused(Verdict(challenge.verdict), peer);
  if (!exchange.receive_mac("acceptor"))
    throw PeerError(ErrorKind::security, peer.rank, peer.text() + " does not have the key of this view");
  exchange.send_mac("dialler");
  const auto offer = exchange.receive<Offer>();
  if (!exchange.receive_mac("offer"))
    throw PeerError(ErrorKind::security, peer.rank, peer.text() + " does not have the key of this view");
  if (offer.shared == 0) return Handshaken{peer, purpose, Transport::tcp, std::move(channel)};
  std::string reason;
  auto region = ShmRegion::open(offer.memory, reason);
  if (region) region->confirm();
  exchange.send(Answer{region != nullptr});
  exchange.send_mac("answer");
  if (region)
    return Handshaken{peer, purpose, Transport::shm,
                      make_shm_channel(std::move(*region), false, std::move(channel))};
  if (session.transport == Transport::shm) throw no_shared_memory(peer, reason);
  return Handshaken{peer, purpose, Transport::tcp, std::move(channel)};
} catch (const PeerError&) {
  throw;
} catch (const Error& lost) {
  why = lost.what();
  return std::nullopt;
}

std::optional<Handshaken> accept_handshake(std::unique_ptr<ByteChannel> channel, const BulkSession& session,
                                           std::span<const BulkPeer> peers, const Patience& patience,
                                           std::string& why) try {
  HandshakeExchange exchange(*channel, session.key, patience);
  const auto hello = exchange.receive<Hello>();
  if (hello.magic != kHelloMagic) {
    why = "it does not speak our protocol";
    return std::nullopt;
  }
  const auto peer =
      std::find_if(peers.begin(), peers.end(), [&](const BulkPeer& p) { return p.rank == hello.from; });
  const Verdict verdict = judge(hello, session, peer == peers.end() ? nullptr : &*peer, *channel);
  exchange.send(Challenge{uint8_t(verdict), {}, random_bytes()});
  if (verdict != Verdict::welcome) {
    why = fmt::format("a node that says it is rank {} was refused (reason {})", hello.from, int(verdict));
    return std::nullopt;
  }
  exchange.send_mac("acceptor");
  if (!exchange.receive_mac("dialler")) {
    why = fmt::format("a node that says it is rank {} does not have the key", hello.from);
    return std::nullopt;
  }
  std::optional<ShmRegion> region;
  if (may_share(hello, session)) region.emplace(ShmRegion::create());
  exchange.send(Offer{region.has_value(), region ? region->offer() : ShmOffer{}});
  exchange.send_mac("offer");
  const auto purpose = BulkPurpose(hello.purpose);
  if (!region) return Handshaken{*peer, purpose, Transport::tcp, std::move(channel)};
  const auto answer = exchange.receive<Answer>();
  if (!exchange.receive_mac("answer")) {
    why = fmt::format("rank {} sent a wrong proof", hello.from);
    return std::nullopt;
  }
  if (answer.opened == 1 && region->confirmed())
    return Handshaken{*peer, purpose, Transport::shm,
                      make_shm_channel(std::move(*region), true, std::move(channel))};
  if (shm_demanded(hello, session)) throw no_shared_memory(*peer, "it could not open ours");
  return Handshaken{*peer, purpose, Transport::tcp, std::move(channel)};
} catch (const PeerError&) {
  throw;
} catch (const Error& lost) {
  why = lost.what();
  return std::nullopt;
}

}  // namespace troupe::comm
