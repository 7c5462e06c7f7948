#include "tests/comm/honest_traffic.hpp"

#include "tests/comm/certificate_files.hpp"
#include "tests/comm/hostile_inputs.hpp"

namespace troupe::comm::test {

using namespace troupe::test;

namespace {

constexpr auto kLong = std::chrono::seconds(120);
constexpr auto kPace = std::chrono::milliseconds(5);
constexpr uint64_t kAhead = 64;  // messages that an end sends before it waits for them to arrive

wire::Envelope numbered(uint64_t number) {
  wire::Envelope envelope;
  envelope.mutable_claim()->set_sequence(number);
  return envelope;
}

}  // namespace

HonestLink::HonestLink(const std::string& folder, int patience_ms) {
  for (size_t end = 0; end < 2; ++end) {
    ends_[end].peer = member_name(uint32_t(1 - end));
    LinkOptions options;
    options.node = member_name(uint32_t(end));
    options.cluster = "test";
    options.incarnation = new_incarnation();
    options.listen_address = "127.0.0.1:0";
    options.interval_ms = 200;
    options.patience_ms = patience_ms;
    if (!folder.empty()) options.security = files_of(folder, options.node);
    ends_[end].hub = std::make_unique<LinkHub>(options, events(end, folder));
  }
  ends_[0].hub->dial(ends_[0].peer, address(1));
  thread_ = std::thread([this] { run(); });
}

HonestLink::~HonestLink() {
  finish();
}

LinkEvents HonestLink::events(size_t end, const std::string& folder) {
  const auto from_peer = [this, end](const LinkPeer& peer) { return peer.node == ends_[end].peer; };
  const auto note = [this](auto change) {
    const std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  };
  return {[=, this](const LinkPeer& peer) {
            // Without certificates a name is whoever says it.
            const bool known = from_peer(peer) || peer.node == LinkInputs::kName || folder.empty();
            note([&] {
              ups_ += from_peer(peer);
              wrong_ += !known;
            });
          },
          [=, this](const LinkPeer& peer, const wire::Envelope& envelope) {
            if (!from_peer(peer)) return;
            note([&] { wrong_ += envelope.claim().sequence() != ends_[end].received++; });
          },
          [=, this](const LinkPeer& peer, const Error&) {
            if (!from_peer(peer)) return;
            note([&] { wrong_ += !stop_; });
          },
          {}};
}

void HonestLink::run() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kLong, [&] { return ups_ == 2; });
  while (!stop_) {
    for (size_t end = 0; end < 2; ++end) {
      End& own = ends_[end];
      while (own.sent - ends_[1 - end].received < kAhead) {
        lock.unlock();
        const bool sent = own.hub->send(own.peer, numbered(own.sent)) == Sent::ok;
        lock.lock();
        if (!sent) break;
        ++own.sent;
      }
    }
    changed_.wait_for(lock, kPace, [this] { return stop_; });
  }
}

uint64_t HonestLink::finish() {
  const auto delivered = [&] {
    return ends_[0].sent == ends_[1].received && ends_[1].sent == ends_[0].received;
  };
  std::unique_lock lock(mutex_);
  if (!thread_.joinable()) return wrong_;
  stop_ = true;
  lock.unlock();
  thread_.join();
  lock.lock();
  if (!changed_.wait_for(lock, kLong, delivered) || ups_ != 2) ++wrong_;
  lock.unlock();
  for (End& end : ends_) end.hub->close(5000);
  lock.lock();
  return wrong_;
}

uint64_t HonestLink::delivered() const {
  const std::lock_guard lock(mutex_);
  return ends_[0].received + ends_[1].received;
}

HonestRing::HonestRing(const std::string& folder) : options_{.certificates = folder} {
  layout_.append(20'000, 20'000);
  wanted_ = plain_total(layout_, 2, {24, 5});
  for (uint32_t rank = 0; rank < 2; ++rank) {
    listeners_[rank] = std::make_unique<BulkListener>(
        BulkListenerOptions{"127.0.0.1:0", test_context(options_, member_name(rank), End::listen)});
    members_.push_back({rank, member_name(rank), listeners_[rank]->address(), ""});
  }
  for (size_t rank = 0; rank < 2; ++rank) threads_[rank] = std::thread([this, rank] { run(rank); });
}

HonestRing::~HonestRing() {
  finish();
}

BulkSession HonestRing::session(uint32_t rank, uint64_t round) {
  BulkSession session = test_session(rank);
  session.ballot = {10 + round, 0};
  return session;
}

void HonestRing::reduce_once(size_t rank, uint64_t round, const std::shared_ptr<SSL_CTX>& tls) {
  const auto deadline = deadline_in_ms(std::chrono::milliseconds(kLong).count());
  Ring ring(members_, rank,
            connect_ring(*listeners_[rank], session(uint32_t(rank), round), members_, tls, deadline));
  const auto values = test_values(layout_, rank);
  kernels::RoundedTotal total;
  ring.reduce(ExactReduction{int64_t(round),
                             &layout_,
                             values,
                             &total,
                             {24, 5},
                             test_contributions(2),
                             buckets_last_first(layout_, 10'000)},
              {}, deadline);
  if (total != wanted_) throw error(ErrorKind::numeric, "rank {} has a wrong sum in round {}", rank, round);
}

void HonestRing::run(size_t rank) {
  const auto tls = test_context(options_, member_name(uint32_t(rank)), End::dial);
  for (uint64_t round = 0; round < rounds_max_; ++round) {
    const auto begin = Clock::now();
    std::string wrong;
    try {
      reduce_once(rank, round, tls);
    } catch (const std::exception& failure) {
      wrong = failure.what();
      ++wrong_;
    }
    const std::lock_guard lock(mutex_);
    if (wrong_text_.empty()) wrong_text_ = wrong;
    longest_seconds_ =
        std::max(longest_seconds_, std::chrono::duration<double>(Clock::now() - begin).count());
    if (rank == 0) ++rounds_;
    changed_.notify_all();
  }
}

uint64_t HonestRing::finish() {
  {
    const std::lock_guard lock(mutex_);
    if (rounds_max_ == UINT64_MAX) rounds_max_ = rounds_ + 3;  // so that both end with the same round
  }
  for (auto& thread : threads_)
    if (thread.joinable()) thread.join();
  return wrong_;
}

bool HonestRing::wait_for_rounds(uint64_t rounds) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kLong, [&] { return rounds_ >= rounds; });
}

double HonestRing::longest_round_seconds() const {
  const std::lock_guard lock(mutex_);
  return longest_seconds_;
}
std::string HonestRing::what_went_wrong() const {
  const std::lock_guard lock(mutex_);
  return wrong_text_;
}

}  // namespace troupe::comm::test
