#include "comm/fault_proxy.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <list>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "comm/address.hpp"
#include "comm/fault_flow.hpp"
#include "comm/socket.hpp"

namespace troupe::comm {
namespace {

constexpr int kAcceptsMax = 16;                        // before those who are connected get their turn
constexpr std::chrono::milliseconds kAcceptPause(20);  // after one that failed for want of descriptors

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
};

SocketAddress resolve(const std::string& text) {
  const Address address = parse_address(text);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int failure = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &list);
  if (failure != 0)
    throw error(ErrorKind::network,
                "cannot resolve '{}', the target of a fault proxy: {}; give an IP address", address.host,
                gai_strerror(failure));
  SocketAddress first;
  first.bytes = list->ai_addrlen;
  std::memcpy(&first.storage, list->ai_addr, list->ai_addrlen);
  freeaddrinfo(list);
  return first;
}

FaultProxyOptions checked(FaultProxyOptions options) {
  const auto require = [](bool good, const std::string& what) {
    if (!good) throw Error(ErrorKind::usage, "fault proxy: " + what);
  };
  require(is_loopback(parse_address(options.listen_address).host),
          options.listen_address + " is not on loopback, and what it forwards is not protected");
  require(options.piece_bytes >= 64 && options.piece_bytes <= kFaultQueueBytesMax,
          fmt::format("piece_bytes = {} is not in 64 to {}", options.piece_bytes, kFaultQueueBytesMax));
  require(options.connections_max >= 1,
          fmt::format("connections_max = {} is less than 1", options.connections_max));
  return options;
}

void check(const Faults& faults) {
  const auto require = [](bool good, const std::string& what) {
    if (!good) throw Error(ErrorKind::usage, "fault proxy: " + what);
  };
  require(faults.delay_ms >= 0 && faults.delay_ms <= kFaultDelayMsMax,
          fmt::format("delay_ms = {} is not in 0 to {}", faults.delay_ms, kFaultDelayMsMax));
  require(faults.bytes_per_second_max >= 0,
          fmt::format("bytes_per_second_max = {} is negative", faults.bytes_per_second_max));
  require(faults.loss >= 0 && faults.loss <= kFaultLossMax,
          fmt::format("loss = {} is not in 0 to {}", faults.loss, kFaultLossMax));
  require(faults.corruption >= 0 && faults.corruption <= 1,
          fmt::format("corruption = {} is not in 0 to 1", faults.corruption));
}

// Closing it now sends a reset.
void reset_on_close(const Descriptor& socket) {
  const linger at_once{1, 0};
  setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);  // only the manner suffers
}

// Ends are 0, the dialler, and 1, the target; flow `e` takes from end `e` and gives to the other one.
struct Connection {
  std::array<Descriptor, 2> ends;
  std::array<FaultFlow, 2> flows;
  std::array<bool, 2> broken{};  // nothing can be written to this end any more
  bool connecting = true;        // to the target
  bool over = false;
  std::array<size_t, 2> polled{};  // places in the list of poll(); 0: not in it
};

}  // namespace

class FaultProxy::Core {
 public:
  explicit Core(const FaultProxyOptions& options) : options_(checked(options)) {
    if (!options_.target.empty()) wanted_.target = resolve(options_.target);
    wanted_.number = 1;
    listener_ = listen_on(options_.listen_address, address_);
    thread_ = std::thread([this] { run(); });
  }
  ~Core() {
    {
      const std::lock_guard lock(mutex_);
      wanted_.stop = true;
    }
    wakeup_.signal();
    thread_.join();
  }

  const std::string& address() const { return address_; }

  // Has the thread take over what `change` does to its orders.
  template <typename Change>
  FaultStats request(Change change) {
    std::unique_lock lock(mutex_);
    change(wanted_);
    const uint64_t mine = ++wanted_.number;
    wakeup_.signal();
    taken_.wait(lock, [&] { return taken_over_ >= mine || !failure_.empty(); });
    if (!failure_.empty())
      throw error(ErrorKind::network, "the fault proxy on {} has ended: {}", address_, failure_);
    return stats_;
  }

  struct Orders {
    uint64_t number = 0;
    std::optional<SocketAddress> target;
    std::array<Faults, 2> faults;  // of flow 0 and 1
    uint64_t resets = 0;
    bool stop = false;
  };

 private:
  void run() noexcept {
    try {
      while (take_orders()) {
        wait();
        const auto now = Clock::now();
        for (Connection& connection : connections_) serve(connection, now);
        connections_.remove_if([](const Connection& connection) { return connection.over; });
        if (entries_[1].revents != 0) accept_some(now);
      }
    } catch (const std::exception& failure) {
      const std::lock_guard lock(mutex_);
      failure_ = failure.what();
    }
    connections_.clear();
    taken_.notify_all();
  }

  // False: to stop.
  bool take_orders() {
    wakeup_.clear();
    const std::lock_guard lock(mutex_);
    if (wanted_.stop) {
      reset_all();
      return false;
    }
    if (wanted_.number == orders_.number) return true;
    if (wanted_.resets != orders_.resets) reset_all();
    orders_ = wanted_;
    for (Connection& connection : connections_)
      for (size_t e = 0; e < 2; ++e) connection.flows[e].change(orders_.faults[e], Clock::now());
    taken_over_ = orders_.number;
    tally_.connections_open = connections_.size();
    stats_ = tally_;
    taken_.notify_all();
    return true;
  }

  void reset_all() {
    for (Connection& connection : connections_) reset(connection);
    connections_.clear();
    for (Descriptor waiting = accept_from(listener_.get()); waiting.valid();
         waiting = accept_from(listener_.get()))
      reset_on_close(waiting);
  }

  static void reset(Connection& connection) {
    for (const Descriptor& end : connection.ends) reset_on_close(end);
    connection.over = true;
  }

  bool cut(size_t flow) const { return orders_.faults[flow].cut; }
  bool any_cut() const { return cut(0) || cut(1); }

  void wait() {
    const auto now = Clock::now();
    const bool accepts = orders_.target && !any_cut() && now >= next_accept_ &&
                         connections_.size() < size_t(options_.connections_max);
    entries_.assign({pollfd{wakeup_.fd(), POLLIN, 0}, pollfd{accepts ? listener_.get() : -1, POLLIN, 0}});
    auto deadline = now < next_accept_ ? next_accept_ : now + std::chrono::hours(1);
    for (Connection& connection : connections_)
      for (size_t e = 0; e < 2; ++e) {
        const short events = events_of(connection, e, now);
        connection.polled[e] = events == 0 ? 0 : entries_.size();
        // An end of which nothing is wanted is left out: its hanging up would end every wait.
        if (events != 0) entries_.push_back({connection.ends[e].get(), events, 0});
        const auto due = connection.flows[e].next_due();
        if (!connection.connecting && !cut(e) && due > now) deadline = std::min(deadline, due);
      }
    const auto left =
        std::max(std::chrono::nanoseconds(deadline - Clock::now()), std::chrono::nanoseconds(0));
    const timespec timeout{left.count() / 1'000'000'000, left.count() % 1'000'000'000};
    const int ready = ppoll(entries_.data(), entries_.size(), &timeout, nullptr);
    TROUPE_CHECK(ready >= 0 || errno == EINTR, "ppoll: {}", std::strerror(errno));
  }

  short events_of(const Connection& connection, size_t e, Clock::time_point now) const {
    if (connection.connecting) return short(e == 1 && !any_cut() ? POLLOUT : 0);
    const bool reads = !cut(e) && connection.flows[e].wants_input();
    const bool writes = !cut(1 - e) && !connection.broken[e] && connection.flows[1 - e].next_due() <= now;
    return short((reads ? POLLIN : 0) | (writes ? POLLOUT : 0));
  }

  void serve(Connection& connection, Clock::time_point now) {
    if (connection.connecting) return finish_connecting(connection);
    for (size_t e = 0; e < 2; ++e) {
      FaultFlow& flow = connection.flows[e];
      if (cut(e)) continue;
      const short events = connection.polled[e] == 0 ? short(0) : entries_[connection.polled[e]].revents;
      if ((events & (POLLIN | POLLHUP | POLLERR)) != 0 && flow.wants_input() &&
          !flow.take_from(connection.ends[e].get(), orders_.faults[e], now, tally_of(e)))
        connection.broken[e] = true;
      const int sink = connection.ends[1 - e].get();
      if (!connection.broken[1 - e] && !flow.give_to(sink, now, tally_of(e))) connection.broken[1 - e] = true;
      if (!connection.broken[e]) flow.pass_end(sink, now);
    }
    for (size_t e = 0; e < 2; ++e) {
      const FaultFlow& flow = connection.flows[e];  // what a broken end said last still counts
      const bool heard = flow.drained(now) || (flow.ended() && connection.broken[1 - e]);
      if (connection.broken[e] && heard && !cut(e)) return reset(connection);
    }
    connection.over = connection.flows[0].finished() && connection.flows[1].finished();
  }

  void finish_connecting(Connection& connection) {
    if (connection.polled[1] == 0 || entries_[connection.polled[1]].revents == 0) return;
    int failure = 0;
    socklen_t bytes = sizeof failure;
    getsockopt(connection.ends[1].get(), SOL_SOCKET, SO_ERROR, &failure, &bytes);
    connection.connecting = false;
    if (failure == 0) return;
    ++tally_.connections_failed;
    reset(connection);
  }

  void accept_some(Clock::time_point now) {
    for (int i = 0; i < kAcceptsMax && connections_.size() < size_t(options_.connections_max); ++i) {
      Descriptor dialler = accept_from(listener_.get());
      if (!dialler.valid()) {
        if (i == 0) next_accept_ = now + kAcceptPause;
        return;
      }
      const uint64_t key = mix64(options_.seed, tally_.connections++);
      Descriptor target(
          socket(orders_.target->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      const auto* address = reinterpret_cast<const sockaddr*>(&orders_.target->storage);
      const int connected = connect(target.get(), address, orders_.target->bytes);
      if (connected != 0 && errno != EINPROGRESS) {
        ++tally_.connections_failed;
        reset_on_close(dialler);
        continue;
      }
      const int on = 1;
      setsockopt(target.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // only latency suffers
      connections_.push_back(
          {{std::move(dialler), std::move(target)},
           {FaultFlow(mix64(key, 0), options_.piece_bytes), FaultFlow(mix64(key, 1), options_.piece_bytes)}});
    }
  }

  FlowStats& tally_of(size_t flow) { return flow == 0 ? tally_.to_target : tally_.to_dialler; }

  const FaultProxyOptions options_;
  std::string address_;
  Descriptor listener_;
  Wakeup wakeup_;

  std::mutex mutex_;
  std::condition_variable taken_;
  Orders wanted_;
  uint64_t taken_over_ = 0;
  std::string failure_;
  FaultStats stats_;

  // The thread's own.
  Orders orders_;
  std::list<Connection> connections_;
  std::vector<pollfd> entries_;
  Clock::time_point next_accept_{};
  FaultStats tally_;
  std::thread thread_;
};

FaultProxy::FaultProxy(const FaultProxyOptions& options) : core_(std::make_unique<Core>(options)) {}
FaultProxy::~FaultProxy() = default;

std::string FaultProxy::address() const {
  return core_->address();
}
void FaultProxy::set_target(const std::string& address) {
  core_->request([target = resolve(address)](Core::Orders& orders) { orders.target = target; });
}
void FaultProxy::set(Direction direction, const Faults& faults) {
  check(faults);
  core_->request([&](Core::Orders& orders) {
    if (direction != Direction::to_dialler) orders.faults[0] = faults;
    if (direction != Direction::to_target) orders.faults[1] = faults;
  });
}
void FaultProxy::heal() {
  core_->request([](Core::Orders& orders) { orders.faults = {}; });
}
void FaultProxy::reset() {
  core_->request([](Core::Orders& orders) { ++orders.resets; });
}
FaultStats FaultProxy::stats() const {
  return core_->request([](Core::Orders&) {});
}

}  // namespace troupe::comm
