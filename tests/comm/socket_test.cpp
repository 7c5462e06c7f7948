// Addresses that are kept for whoever listens there, and what connections are set to.
#include "comm/socket.hpp"

#include <fstream>

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "kernels/base/error.hpp"
#include "tests/comm/raw_socket.hpp"

using namespace troupe;
using namespace troupe::comm;
using namespace troupe::comm::test;

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
