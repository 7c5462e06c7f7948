// Two nodes that go about their work while strangers come to their ports: a link over which both send
// numbered messages, and rings that they form, use and leave again. All that goes wrong is counted.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "comm/link.hpp"
#include "comm/messages.pb.h"
#include "tests/comm/ring_harness.hpp"

namespace troupe::comm::test {

class HonestLink {
 public:
  // Of the certificates in `folder`, those of "node-0" and "node-1"; empty: in plain text.
  HonestLink(const std::string& folder, int patience_ms);
  ~HonestLink();

  std::string address(size_t end) const { return ends_[end].hub->listen_address(); }
  // Sends no more, and waits for what was sent. Returns how often something went wrong: lost, repeated or
  // reordered messages, links that went down, and with certificates peers that have none.
  uint64_t finish();
  uint64_t delivered() const;

 private:
  struct End {
    std::string peer;
    std::unique_ptr<LinkHub> hub;
    uint64_t sent = 0, received = 0;  // guarded by mutex_
  };
  LinkEvents events(size_t end, const std::string& folder);
  void run();

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::array<End, 2> ends_;
  uint64_t ups_ = 0, wrong_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

class HonestRing {
 public:
  // Certificates as for links.
  explicit HonestRing(const std::string& folder);
  ~HonestRing();

  std::string address(size_t rank) const { return listeners_[rank]->address(); }
  uint64_t finish();  // ends the rounds; returns how many members of how many rounds had no right sum
  uint64_t rounds() const { return rounds_; }
  bool wait_for_rounds(uint64_t rounds) const;  // until so many were done in all; false at a far deadline
  double longest_round_seconds() const;
  std::string what_went_wrong() const;

  // As the members have it in round `round`.
  static BulkSession session(uint32_t rank, uint64_t round);

 private:
  void run(size_t rank);
  void reduce_once(size_t rank, uint64_t round, const std::shared_ptr<SSL_CTX>& tls);

  const troupe::test::RingTestOptions options_;
  std::array<std::unique_ptr<BulkListener>, 2> listeners_;
  std::vector<BulkPeer> members_;
  kernels::BlockLayout layout_;
  kernels::RoundedTotal wanted_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::string wrong_text_;
  double longest_seconds_ = 0;
  std::atomic<uint64_t> rounds_ = 0, rounds_max_ = UINT64_MAX, wrong_ = 0;
  std::array<std::thread, 2> threads_;
};

}  // namespace troupe::comm::test
