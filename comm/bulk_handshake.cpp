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
  uint8_t reserved = 0;
  uint8_t transport = 0;
  uint16_t host_id_bytes = 0;
  std::array<uint8_t, 32> job{};
  std::array<uint8_t, 32> nonce{};
  std::array<char, 152> host_id{};
  uint64_t reserved_too = 0;
};
static_assert(sizeof(Hello) == 256);

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

Hello make_hello(const BulkSession& session, const BulkPeer& peer) {
  TROUPE_CHECK(session.host_id.size() <= kHostIdBytesMax, "a host id of {} bytes", session.host_id.size());
  Hello hello;
  hello.ballot_number = session.ballot.number;
  hello.ballot_leader = session.ballot.leader;
  hello.from = session.rank;
  hello.to = peer.rank;
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
  if (peer == nullptr || hello.to != session.rank) return Verdict::not_a_member;
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

PeerError lacks_key(const BulkPeer& peer) {
  return PeerError(ErrorKind::security, peer.rank, peer.text() + " does not have the key of this view");
}

// What a verdict other than welcome and later means to the dialler.
PeerError refusal_of(Verdict verdict, const BulkPeer& peer) {
  const auto refused = [&](ErrorKind kind, std::string_view why) {
    return PeerError(kind, peer.rank, fmt::format("{} refused us: {}", peer.text(), why));
  };
  switch (verdict) {
    case Verdict::old_ballot:
      return refused(ErrorKind::protocol, "it is in a later ballot");
    case Verdict::other_job:
      return refused(ErrorKind::protocol, "it works on another job");
    case Verdict::not_a_member:
      return refused(ErrorKind::security,
                     "we are no member whom it expects; do both have the same cluster file?");
    case Verdict::other_name:
      return refused(ErrorKind::security, "our certificate does not carry our name in the cluster file");
    case Verdict::no_shared_memory:
      return no_shared_memory(peer, "it runs elsewhere, or demands another transport");
    default:
      return refused(ErrorKind::protocol, "with an answer that no node gives");
  }
}

}  // namespace

std::optional<Handshaken> dial_handshake(std::unique_ptr<ByteChannel> channel, const BulkSession& session,
                                         const BulkPeer& peer, const Patience& patience,
                                         std::string& why) try {
  HandshakeExchange exchange(*channel, session.key, patience);
  exchange.send(make_hello(session, peer));
  const auto challenge = exchange.receive<Challenge>();
  if (Verdict(challenge.verdict) == Verdict::later) {
    why = "it has not reached our ballot yet";
    return std::nullopt;
  }
  if (Verdict(challenge.verdict) != Verdict::welcome)
    throw UnprovedRefusal(refusal_of(Verdict(challenge.verdict), peer));
  if (!exchange.receive_mac("acceptor")) throw UnprovedRefusal(lacks_key(peer));
  exchange.send_mac("dialler");
  const auto offer = exchange.receive<Offer>();
  if (!exchange.receive_mac("offer")) throw UnprovedRefusal(lacks_key(peer));
  if (offer.shared == 0 && session.transport == Transport::shm)
    throw no_shared_memory(peer, "it could not make any");
  if (offer.shared == 0) return Handshaken{peer, Transport::tcp, std::move(channel)};
  std::string reason;
  auto region = ShmRegion::open(offer.memory, reason);
  if (region) region->confirm();
  exchange.send(Answer{region != nullptr});
  exchange.send_mac("answer");
  if (region)
    return Handshaken{peer, Transport::shm, make_shm_channel(std::move(*region), false, std::move(channel))};
  if (session.transport == Transport::shm) throw no_shared_memory(peer, reason);
  return Handshaken{peer, Transport::tcp, std::move(channel)};
} catch (const PeerError&) {
  throw;
} catch (const Error& lost) {
  why = lost.what();
  return std::nullopt;
}

struct AcceptHandshake::Core {
  enum class Stage : uint8_t { hello = 1, proof, answer };

  State refuse(std::string& why, const std::string& reason) {
    why = reason;
    return State::refused;
  }
  State finish(Transport transport) {
    done = Handshaken{peer, transport, std::move(channel)};
    return State::done;
  }
  State advance(const BulkSession& now, std::span<const BulkPeer> peers, std::string& why);
  State take_hello(const BulkSession& now, std::span<const BulkPeer> peers, std::string& why);
  State take_proof(std::string& why);
  State take_answer(std::string& why);

  std::unique_ptr<ByteChannel> channel;
  std::unique_ptr<HandshakeExchange> exchange;
  Stage stage = Stage::hello;
  BulkSession session;  // from the hello on
  Hello hello;
  BulkPeer peer;
  std::unique_ptr<ShmRegion> region;
  Handshaken done;
};

AcceptHandshake::AcceptHandshake(std::unique_ptr<ByteChannel> channel) : core_(std::make_unique<Core>()) {
  core_->channel = std::move(channel);
  // What is written fits into a new connection's buffer, so nothing waits.
  core_->exchange = std::make_unique<HandshakeExchange>(*core_->channel, core_->session.key, Clock::now());
}
AcceptHandshake::~AcceptHandshake() = default;
AcceptHandshake::AcceptHandshake(AcceptHandshake&&) noexcept = default;
AcceptHandshake& AcceptHandshake::operator=(AcceptHandshake&&) noexcept = default;

AcceptHandshake::State AcceptHandshake::step(const BulkSession& session, std::span<const BulkPeer> peers,
                                             std::string& why) try {
  return core_->advance(session, peers, why);
} catch (const PeerError&) {
  throw;
} catch (const Error& lost) {
  return core_->refuse(why, lost.what());
}

bool AcceptHandshake::belongs_elsewhere(const BulkSession& session) const {
  const BulkSession& own = core_->session;
  return core_->stage != Core::Stage::hello && (own.job != session.job || own.ballot != session.ballot ||
                                                own.key != session.key || own.rank != session.rank);
}

Handshaken AcceptHandshake::take() {
  return std::move(core_->done);
}

AcceptHandshake::State AcceptHandshake::Core::advance(const BulkSession& now, std::span<const BulkPeer> peers,
                                                      std::string& why) {
  State state = State::waiting;
  if (stage == Stage::hello && exchange->arrived(sizeof(Hello))) state = take_hello(now, peers, why);
  if (state == State::waiting && stage == Stage::proof && exchange->arrived(sizeof(Mac)))
    state = take_proof(why);
  if (state == State::waiting && stage == Stage::answer && exchange->arrived(sizeof(Answer) + sizeof(Mac)))
    state = take_answer(why);
  return state;
}

AcceptHandshake::State AcceptHandshake::Core::take_hello(const BulkSession& now,
                                                         std::span<const BulkPeer> peers, std::string& why) {
  hello = exchange->receive<Hello>();
  if (hello.magic != kHelloMagic) return refuse(why, "it does not speak our protocol");
  const auto found =
      std::find_if(peers.begin(), peers.end(), [&](const BulkPeer& p) { return p.rank == hello.from; });
  const Verdict verdict = judge(hello, now, found == peers.end() ? nullptr : &*found, *channel);
  exchange->send(Challenge{uint8_t(verdict), {}, random_bytes()});
  if (verdict != Verdict::welcome)
    return refuse(
        why, fmt::format("a node that says it is rank {} was refused (reason {})", hello.from, int(verdict)));
  session = now;
  peer = *found;
  exchange->set_key(session.key);
  exchange->send_mac("acceptor");
  stage = Stage::proof;
  return State::waiting;
}

AcceptHandshake::State AcceptHandshake::Core::take_proof(std::string& why) {
  if (!exchange->receive_mac("dialler"))
    return refuse(why, fmt::format("a node that says it is rank {} does not have the key", hello.from));
  std::string no_memory;
  if (may_share(hello, session)) region = ShmRegion::create(no_memory);
  exchange->send(Offer{region != nullptr, region ? region->offer() : ShmOffer{}});
  exchange->send_mac("offer");
  if (!region && shm_demanded(hello, session)) throw no_shared_memory(peer, no_memory);
  if (!region) return finish(Transport::tcp);
  stage = Stage::answer;
  return State::waiting;
}

AcceptHandshake::State AcceptHandshake::Core::take_answer(std::string& why) {
  const auto answer = exchange->receive<Answer>();
  if (!exchange->receive_mac("answer"))
    return refuse(why, fmt::format("rank {} sent a wrong proof", hello.from));
  if (answer.opened == 1 && region->confirmed()) {
    channel = make_shm_channel(std::move(*region), true, std::move(channel));
    return finish(Transport::shm);
  }
  if (shm_demanded(hello, session)) throw no_shared_memory(peer, "it could not open ours");
  return finish(Transport::tcp);
}

}  // namespace troupe::comm
