// A TCP proxy on loopback that passes bytes both ways, for one connection after another, and changes some of
// them.
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
  // `alter(offset, bytes)` may change what passes from the dialler, `alter_answers` what passes to it; offset
  // counts from the start of a connection.
  using Alter = std::function<void(uint64_t offset, std::span<std::byte> bytes)>;
  FlipProxy(const std::string& target, Alter alter, Alter alter_answers = {});
  ~FlipProxy();
  const std::string& address() const { return address_; }

 private:
  void run();
  bool serve();
  bool pass(int from, int to, const Alter& alter, uint64_t& offset);

  const std::string target_;
  const Alter alter_, alter_answers_;
  std::string address_;
  comm::Descriptor listener_;
  comm::Wakeup stop_;
  std::thread thread_;
};

}  // namespace troupe::test
