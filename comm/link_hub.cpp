#include "comm/link_hub.hpp"

#include <algorithm>

#include <sys/random.h>

#include "comm/link_hello.hpp"
#include "comm/messages.hpp"

namespace troupe::comm {

namespace {

constexpr size_t kDialsMax = wire::kRanksMax;

LinkOptions checked(LinkOptions options) {
  const auto require = [](bool good, const std::string& what) {
    if (!good) throw Error(ErrorKind::usage, "link: " + what);
  };
  require(
      is_client_name(options.node) || valid_node_name(options.node),
      fmt::format("'{}' cannot be a node's name: 1 to 63 letters, digits, '-', '_' or '.', with at least one "
                  "letter, beginning with a letter or digit",
                  options.node));
  require(options.cluster.size() <= wire::kNameBytesMax, "the cluster's name is longer than 255 bytes");
  require(options.interval_ms >= 10, fmt::format("interval_ms = {} is less than 10", options.interval_ms));
  require(options.patience_ms >= 2 * options.interval_ms,
          fmt::format("patience_ms = {} is less than twice interval_ms = {}", options.patience_ms,
                      options.interval_ms));
  require(options.clients_max >= 0, fmt::format("clients_max = {} is negative", options.clients_max));
  TROUPE_CHECK(options.incarnation.size() == wire::kIncarnationBytes, "incarnation of {} bytes",
               options.incarnation.size());
  TROUPE_CHECK(options.queue_bytes_max >= wire::kMessageBytesMax + 1024,
               "queue_bytes_max {} holds no message", options.queue_bytes_max);
  return options;
}

}  // namespace

LinkSession::LinkSession(std::shared_ptr<LinkHub::Core> hub, std::shared_ptr<LinkStream> stream,
                         std::string dialled, std::string address)
    : hub_(std::move(hub)),
      stream_(std::move(stream)),
      dialled_(std::move(dialled)),
      address_(std::move(address)),
      started_(LinkClock::now()),
      heard_(started_.time_since_epoch().count()),
      sent_(started_) {}

void LinkSession::received(std::string_view bytes) {
  hub_->received(*this, bytes);
}
void LinkSession::received_damaged() {
  hub_->received_damaged(*this);
}
void LinkSession::ended(const StreamEnd& end) {
  hub_->ended(shared_from_this(), end);
}

LinkHub::Core::Core(LinkOptions options, LinkEvents events)
    : options_(checked(std::move(options))),
      events_(std::move(events)),
      hello_(wire::encode(make_hello(options_))) {
  TROUPE_CHECK(events_.up && events_.message && events_.down, "a link event without a handler");
  settings_.patience_ms = options_.patience_ms;
  if (options_.security.tls())
    settings_.credentials = load_credentials(
        options_.security, is_client_name(options_.node) ? std::string_view() : options_.node);
  prepare_process();
}

LinkHub::Core::~Core() = default;

void LinkHub::Core::start() {
  if (!options_.listen_address.empty()) {
    Address address = parse_address(options_.listen_address);
    require_allowed(address, options_.security, "listen on");
    listener_ = listen(address, settings_,
                       [this](const std::shared_ptr<LinkStream>& stream) { return accept(stream); });
    address.port = listener_->port();
    const std::lock_guard lock(mutex_);
    listening_ = address.text();
  }
  timer_ = std::thread([this] { run_timer(); });
}

void LinkHub::Core::dial(const std::string& node, const std::string& address) {
  if (!valid_node_name(node) && node != kAnyNode)
    throw error(ErrorKind::usage, "cannot dial '{}': that is no name of a node", node);
  if (node == options_.node) throw error(ErrorKind::usage, "node '{}' cannot dial itself", node);
  const Address parsed = parse_address(address);
  require_allowed(parsed, options_.security, "connect to");
  SessionPointer outdated;
  {
    const std::lock_guard lock(mutex_);
    if (closing_) return;
    const auto found = dials_.find(node);
    if (found != dials_.end() && found->second.address == parsed) {
      found->second.next = {};  // whoever asks again has reason to think that it is there now
      changed_.notify_all();
      return;
    }
    TROUPE_CHECK(found != dials_.end() || dials_.size() < kDialsMax, "more than {} nodes dialled", kDialsMax);
    Dial& entry = dials_[node];
    outdated = std::move(entry.attempt);
    entry = Dial{};
    entry.address = parsed;
    changed_.notify_all();
  }
  if (outdated) outdated->stream_->cancel(error(ErrorKind::cancelled, "'{}' moved to {}", node, address));
}

void LinkHub::Core::start_attempt(const std::string& node, Dial& entry) {
  const auto stream = grave_->keep(comm::dial(node, entry.address, settings_));
  entry.attempt = std::make_shared<LinkSession>(shared_from_this(), stream, node, entry.address.text());
  sessions_.insert(entry.attempt);
  stream->start(entry.attempt);
  stream->send(hello_, options_.queue_bytes_max);
}

void LinkHub::Core::forget(const std::string& node) {
  std::vector<SessionPointer> outdated;
  {
    const std::lock_guard lock(mutex_);
    if (const auto dialled = dials_.extract(node); !dialled.empty())
      outdated.push_back(dialled.mapped().attempt);
    if (const auto peer = peers_.find(node); peer != peers_.end()) {
      outdated.push_back(peer->second.current);
      outdated.push_back(peer->second.waiting);
    }
  }
  for (const SessionPointer& session : outdated)
    if (session)
      session->stream_->cancel(error(ErrorKind::cancelled, "the link with '{}' was given up", node));
}

Sent LinkHub::Core::send(const std::string& node, const wire::Envelope& envelope) {
  std::string bytes = wire::encode(envelope);
  SessionPointer session;
  {
    const std::lock_guard lock(mutex_);
    const auto peer = peers_.find(node);
    if (peer == peers_.end() || !peer->second.current || closing_) return Sent::down;
    session = peer->second.current;
  }
  return session->stream_->send(std::move(bytes), options_.queue_bytes_max);
}

void LinkHub::Core::close(int deadline_ms) {
  const std::lock_guard one(closing_mutex_);
  const auto begin = LinkClock::now();
  const auto after = [&](int ms) { return begin + std::chrono::milliseconds(ms); };
  std::unique_lock lock(mutex_);
  closing_ = true;
  dials_.clear();
  changed_.notify_all();
  std::vector<SessionPointer> sessions(sessions_.begin(), sessions_.end());
  lock.unlock();
  if (timer_.joinable()) timer_.join();
  const Error why(ErrorKind::cancelled, "this node is closing its links");
  for (const SessionPointer& session : sessions) {
    const auto stage = session->stage_.load();
    if (stage == LinkSession::Stage::up || stage == LinkSession::Stage::rising)
      session->stream_->finish();
    else
      session->stream_->cancel(why);
  }
  const auto all_ended = [this] { return sessions_.empty(); };
  lock.lock();
  if (!changed_.wait_until(lock, after(deadline_ms / 2), all_ended)) {
    lock.unlock();
    for (const SessionPointer& session : sessions) session->stream_->cancel(why);
    lock.lock();
    changed_.wait_until(lock, after(std::max(deadline_ms, 1000)),
                        all_ended);  // cancelled streams end at once
  }
  lock.unlock();
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(after(deadline_ms) - LinkClock::now());
  if (listener_) listener_->shutdown(std::max(0, int(left.count())));
  sessions.clear();
  grave_->wait_for_all(after(std::max(deadline_ms, 1000)));
  grave_->clear();
}

LinkHub::LinkHub(LinkOptions options, LinkEvents events)
    : core_(std::make_shared<Core>(std::move(options), std::move(events))) {
  core_->start();
}
LinkHub::~LinkHub() {
  core_->close(2000);
}

std::string LinkHub::listen_address() const {
  return core_->listen_address();
}
void LinkHub::dial(const std::string& node, const std::string& address) {
  core_->dial(node, address);
}
void LinkHub::forget(const std::string& node) {
  core_->forget(node);
}
Sent LinkHub::send(const std::string& node, const wire::Envelope& envelope) {
  return core_->send(node, envelope);
}
void LinkHub::close(int deadline_ms) {
  core_->close(deadline_ms);
}

std::string new_incarnation() {
  std::string bytes(wire::kIncarnationBytes, '\0');
  TROUPE_CHECK(getrandom(bytes.data(), bytes.size(), 0) == ssize_t(bytes.size()));
  return bytes;
}

}  // namespace troupe::comm
