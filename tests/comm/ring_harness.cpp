#include "tests/comm/ring_harness.hpp"

#include <future>
#include <thread>

#include <doctest/doctest.h>

#include "comm/shared_memory.hpp"
#include "comm/tls.hpp"
#include "kernels/base/random.hpp"

namespace troupe::test {

using namespace comm;

namespace {

std::string way_to(uint32_t rank, const BulkListener& listener, const RingTestOptions& options) {
  return options.way ? options.way(rank, listener.address()) : listener.address();
}

}  // namespace

std::string member_name(uint32_t rank) {
  return fmt::format("node-{}", rank);
}

BulkSession test_session(uint32_t rank, const RingTestOptions& options) {
  BulkSession session;
  session.job.fill(7);
  session.ballot = {3, 0};
  session.key = std::string(32, 'k');
  session.rank = rank;
  session.host_id = host_id();
  session.transport = options.transport;
  session.silence_ms_max = options.silence_ms_max;
  return session;
}

std::shared_ptr<SSL_CTX> test_context(const RingTestOptions& options, const std::string& name, End end) {
  const std::string& folder = options.certificates;
  if (folder.empty()) return nullptr;
  const Security security{folder + "/ca.pem", folder + "/" + name + ".pem", folder + "/" + name + ".key"};
  return end == End::dial ? make_client_context(security, name) : make_server_context(security, name);
}

std::vector<std::exception_ptr> run_linked(size_t ranks, const RingTestOptions& options,
                                           const LinkedBody& body) {
  std::vector<std::unique_ptr<BulkListener>> listeners;
  std::vector<BulkPeer> members;
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    listeners.push_back(std::make_unique<BulkListener>(
        BulkListenerOptions{"127.0.0.1:0", test_context(options, member_name(rank), End::listen)}));
    members.push_back({rank, member_name(rank), way_to(rank, *listeners.back(), options), host_id()});
  }
  std::vector<std::exception_ptr> thrown(ranks);
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        const auto session = test_session(uint32_t(rank), options);
        const auto tls = test_context(options, member_name(uint32_t(rank)), End::dial);
        body(members, rank, connect_ring(*listeners[rank], session, members, tls, soon()));
      } catch (...) {
        thrown[rank] = std::current_exception();
      }
    });
  for (auto& thread : threads) thread.join();
  return thrown;
}

std::vector<std::exception_ptr> run_ranks(size_t ranks, const RingTestOptions& options,
                                          const std::function<void(Ring&)>& body) {
  return run_linked(ranks, options,
                    [&](const std::vector<BulkPeer>& members, size_t position, RingLinks links) {
                      Ring ring(members, position, std::move(links), options.ring);
                      body(ring);
                    });
}

void check_all_well(const std::vector<std::exception_ptr>& thrown) {
  for (size_t rank = 0; rank < thrown.size(); ++rank) {
    if (!thrown[rank]) continue;
    try {
      std::rethrow_exception(thrown[rank]);
    } catch (const std::exception& error) {
      FAIL_CHECK("rank ", rank, " of ", thrown.size(), ": ", std::string(error.what()));
    }
  }
}

void run_ranks_well(size_t ranks, const RingTestOptions& options, const std::function<void(Ring&)>& body) {
  check_all_well(run_ranks(ranks, options, body));
}

ConnectedPair connect_pair(const RingTestOptions& options) {
  ConnectedPair pair;
  pair.listener = std::make_unique<BulkListener>(
      BulkListenerOptions{"127.0.0.1:0", test_context(options, member_name(1), End::listen)});
  const BulkPeer acceptor{1, member_name(1), way_to(1, *pair.listener, options), host_id()};
  const BulkPeer dialler{0, member_name(0), "", host_id()};
  auto dialled = std::async(std::launch::async, [&] {
    return bulk_connect(test_session(0, options), acceptor, test_context(options, member_name(0), End::dial),
                        soon());
  });
  pair.acceptor = std::make_unique<BulkConnection>(
      pair.listener->accept(test_session(1, options), {&dialler, 1}, soon()));
  pair.dialler = std::make_unique<BulkConnection>(dialled.get());
  return pair;
}

std::vector<int64_t> test_values(const kernels::BlockLayout& layout, size_t rank) {
  const Philox philox = philox_from(mix64(91, rank));
  std::vector<int64_t> values(size_t(layout.elements()), 0);
  layout.for_each(0, layout.blocks(), [&](int64_t index, kernels::BlockLayout::Block block) {
    const auto of_block = philox(uint64_t(index), 1);
    if (of_block[0] % 5 == 0) return;  // stays zero
    const unsigned width = 1 + of_block[1] % 50, zeros = of_block[2] % 8;
    for (int64_t i = 0; i < block.count; ++i) {
      const auto draw = philox(uint64_t(block.offset + i));
      const uint64_t bits = (uint64_t(draw[0]) << 32 | draw[1]) >> (64 - width);
      values[size_t(block.offset + i)] = (draw[2] % 2 == 0 ? 1 : -1) * int64_t(bits << zeros);
    }
  });
  return values;
}

kernels::RoundedTotal plain_total(const kernels::BlockLayout& layout, size_t ranks,
                                  const kernels::RoundOptions& rounding) {
  std::vector<int64_t> sum(size_t(layout.elements()), 0);
  for (size_t rank = 0; rank < ranks; ++rank) {
    const auto values = test_values(layout, rank);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
  }
  kernels::RoundedTotal total;
  total.resize(layout);
  kernels::round_total(layout, sum, rounding, 0, layout.blocks(), total);
  return total;
}

std::vector<std::vector<uint64_t>> test_contributions(size_t ranks) {
  std::vector<std::vector<uint64_t>> words(ranks, std::vector<uint64_t>(3, 0));
  for (size_t slot = 0; slot < 150; ++slot) words[slot % ranks][slot / 64] |= uint64_t{1} << (slot % 64);
  return words;
}

SumMeta test_meta(size_t rank) {
  const int64_t r = int64_t(rank);
  return {100 + r, 10 + r, (int64_t{1} << 40) + r, -r, 1, {r, 2 * r, 3}, rank % 3 == 2 ? 2u : 0u};
}

}  // namespace troupe::test
