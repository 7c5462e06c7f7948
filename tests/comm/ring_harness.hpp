// Ranks as threads: each has its own listener on loopback, its own session and its own Ring.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/ring.hpp"

namespace troupe::test {

struct RingTestOptions {
  comm::Transport transport = comm::Transport::tcp;
  comm::RingOptions ring{};
  int silence_ms_max = 30'000;  // the machine may be loaded
  std::string certificates{};   // a folder of make_certificates(); empty: no TLS
  // Where others dial a rank that listens at `address`, as through a proxy; empty: there.
  std::function<std::string(uint32_t rank, const std::string& address)> way{};
};

comm::BulkSession test_session(uint32_t rank, const RingTestOptions& options = {});
std::string member_name(uint32_t rank);
enum class End { dial, listen };
// The context of a rank, or nothing.
std::shared_ptr<SSL_CTX> test_context(const RingTestOptions& options, const std::string& name, End end);

// Runs `body` once a rank on threads of their own with connected rings, and waits for all. Gives what each
// threw.
std::vector<std::exception_ptr> run_ranks(size_t ranks, const RingTestOptions& options,
                                          const std::function<void(comm::Ring&)>& body);
// The same; fails when any rank threw.
void run_ranks_well(size_t ranks, const RingTestOptions& options,
                    const std::function<void(comm::Ring&)>& body);
// The same with the links alone, for members that are no Ring.
using LinkedBody =
    std::function<void(const std::vector<comm::BulkPeer>& members, size_t position, comm::RingLinks links)>;
std::vector<std::exception_ptr> run_linked(size_t ranks, const RingTestOptions& options,
                                           const LinkedBody& body);
void check_all_well(const std::vector<std::exception_ptr>& thrown);

// A two-ended connection between ranks 0 (first) and 1.
struct ConnectedPair {
  std::unique_ptr<comm::BulkListener> listener;
  std::unique_ptr<comm::BulkConnection> dialler, acceptor;
};
ConnectedPair connect_pair(const RingTestOptions& options = {});

// Long enough on any machine that works.
inline comm::Deadline soon() {
  return comm::deadline_in_ms(60'000);
}

// What one rank puts into a reduction of the layout: wide and narrow values, zeros, some blocks all zero.
std::vector<int64_t> test_values(const kernels::BlockLayout& layout, size_t rank);
// The plain sum over all ranks, rounded: what every rank must end with.
kernels::RoundedTotal plain_total(const kernels::BlockLayout& layout, size_t ranks,
                                  const kernels::RoundOptions& rounding);
// One slot (or more) a rank, disjoint.
std::vector<std::vector<uint64_t>> test_contributions(size_t ranks);
comm::SumMeta test_meta(size_t rank);

}  // namespace troupe::test
