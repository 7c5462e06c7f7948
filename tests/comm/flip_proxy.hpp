// A TCP proxy on loopback that passes bytes both ways and changes some of those that go from the dialler to
// the target.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "comm/socket.hpp"

namespace troupe::test {

class FlipProxy {
 public:
  // `alter(offset, bytes)` may change what passes from the dialler; offset counts from the start of the
  // connection.
  using Alter = std::function<void(uint64_t offset, std::span<std::byte> bytes)>;
  FlipProxy(const std::string& target, Alter alter);
  ~FlipProxy();
  const std::string& address() const { return address_; }

 private:
  void run();
  bool pass(int from, int to, uint64_t* offset);

  const std::string target_;
  const Alter alter_;
  std::string address_;
  comm::Descriptor listener_;
  comm::Wakeup stop_;
  std::thread thread_;
};

}  // namespace troupe::test
