// Addresses that are kept for whoever listens there, hosts with several, and what connections are set to.
#include "comm/socket.hpp"

#include <fstream>
#include <future>
#include <memory>
#include <stdexcept>
#include <vector>

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "kernels/base/error.hpp"
#include "tests/comm/raw_socket.hpp"

using namespace troupe;
using namespace troupe::comm;
using namespace troupe::comm::test;

namespace {

HostAddress address_of(const std::string& text) {
  std::string why;
  const auto found = find_addresses(parse_address(text), false, raw_deadline(), why);
  REQUIRE(found.size() == 1);
  return found.front();
}

// Somebody who listens and lets nobody in: its queue is as short as can be, and full. Who dials it now is not
// answered.
class FullListener {
 public:
  FullListener() : listener_(reserve_address("127.0.0.1:0", address_)) {
    REQUIRE(::listen(listener_.get(), 0) == 0);
    std::string why;
    do waiting_.push_back(connect_to(address_, deadline_in_ms(200), why));
    while (waiting_.back().valid() && waiting_.size() < 16);
    REQUIRE_FALSE(waiting_.back().valid());
  }
  const std::string& address() const { return address_; }

 private:
  std::string address_;
  Descriptor listener_;
  std::vector<Descriptor> waiting_;
};

}  // namespace

TEST_CASE("an address of a host where nobody answers leaves time for the next one") {
  const FullListener full;
  std::string answers, why;
  const Descriptor listener = listen_on("127.0.0.1:0", answers);
  const std::vector<HostAddress> addresses{address_of(full.address()), address_of(answers)};
  const Descriptor dialler = connect_to_first(addresses, deadline_in_ms(3000), why);
  CAPTURE(why);
  REQUIRE(dialler.valid());
  const Descriptor accepted = raw_accept(listener);
  CHECK(send_all(dialler, "word"));
  CHECK(receive_up_to(accepted, 4).bytes == "word");
}

TEST_CASE("who asks a resolver that does not answer waits until its patience ends or it is cancelled") {
  std::promise<void> end;
  const auto never = [ended = end.get_future().share()] {
    ended.wait();
    return HostAddresses{};
  };
  const auto ask = [&](const Patience& patience) {
    const HostAddresses answer = wait_for_addresses(never, patience);
    CHECK(answer.found.empty());
    CHECK(answer.why == "the resolver did not answer in time");
  };
  ask(deadline_in_ms(50));
  const auto begin = Clock::now();
  ask({raw_deadline(), std::make_shared<std::atomic<bool>>(true)});
  CHECK(Clock::now() - begin < std::chrono::seconds(30));
  end.set_value();

  const auto fails = []() -> HostAddresses { throw std::runtime_error("it failed"); };
  CHECK(wait_for_addresses(fails, raw_deadline()).why == "it failed");
  std::string why;
  CHECK_FALSE(find_addresses({"localhost", 1}, false, raw_deadline(), why).empty());
}

TEST_CASE("a reserved address is listened on again and again, and refuses in between") {
  std::string address, real;
  const Descriptor reserved = reserve_address("127.0.0.1:0", address);
  for (int turn = 0; turn < 3; ++turn) {
    std::string why;
    CHECK_FALSE(connect_to(address, raw_deadline(), why).valid());
    CHECK(why == std::strerror(ECONNREFUSED));
    const Descriptor listener = listen_on(address, real);
    CHECK(real == address);
    const Descriptor dialler = raw_connect(address), accepted = raw_accept(listener);
    CHECK(send_all(dialler, "word"));
    CHECK(receive_up_to(accepted, 4).bytes == "word");
    CHECK_THROWS_AS(listen_on(address, real), Error);  // one at a time
  }
  CHECK_THROWS_AS(reserve_address("nobody", address), Error);
}

TEST_CASE("a reserved port is not given to a socket that is not meant to share it") {
  std::string text;
  const Descriptor reserved = reserve_address("127.0.0.1:0", text);
  const Descriptor stranger(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  socklen_t size = sizeof address;
  REQUIRE(getsockname(reserved.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  CHECK(bind(stranger.get(), reinterpret_cast<sockaddr*>(&address), size) == -1);
  CHECK(errno == EADDRINUSE);
}

TEST_CASE("a connection within one machine is not paced, and others are as the system says") {
  const auto congestion_control = [](const Descriptor& socket) {
    char text[16] = {};
    socklen_t size = sizeof text;
    REQUIRE(getsockopt(socket.get(), IPPROTO_TCP, TCP_CONGESTION, text, &size) == 0);
    return std::string(text, strnlen(text, size));
  };
  std::string of_system;
  REQUIRE(std::getline(std::ifstream("/proc/sys/net/ipv4/tcp_congestion_control"), of_system));
  const auto check = [&](const std::string& listen_at, const std::string& expected) {
    std::string address, why;
    const Descriptor listener = listen_on(listen_at, address);
    const Descriptor dialler = connect_to(address, raw_deadline(), why);
    CAPTURE(why);
    REQUIRE(dialler.valid());
    REQUIRE(wait_readable(listener.get(), raw_deadline()));
    const Descriptor accepted = accept_from(listener.get());
    CHECK(congestion_control(dialler) == expected);
    CHECK(congestion_control(accepted) == expected);
  };
  check("127.0.0.1:0", "reno");
  check("127.0.0.2:0", of_system);  // dialled from 127.0.0.1
}
