// One member of a ring as a process of its own, for tests. It prints the address of its listener, reads the
// addresses of all members from standard input, joins the ring and reduces the test values step by step. It
// prints the digest of each total, and at the end or at an error one line that says how it went.
//   ring_member RANK RANKS tcp|shm STEPS ELEMENTS SILENCE_MS ADDRESS_FILE...
#include <cstdio>
#include <fstream>
#include <iostream>
#include <thread>

#include "comm/shared_memory.hpp"
#include "kernels/base/hash.hpp"
#include "tests/comm/ring_harness.hpp"

using namespace troupe;
using namespace troupe::comm;
using namespace troupe::test;

namespace {

struct Arguments {
  size_t rank, ranks;
  Transport transport;
  int64_t steps, elements;
  int silence_ms;
  std::vector<std::string> files;  // where each member writes its address
};

// The other members write theirs as soon as they listen.
std::string read_address(const std::string& file, Deadline deadline) {
  for (;;) {
    std::string line;
    if (std::ifstream stream(file); std::getline(stream, line) && !stream.eof()) return line;
    if (Clock::now() > deadline) throw std::runtime_error("no address in " + file);
    std::this_thread::yield();
  }
}

void run(const Arguments& arguments) {
  RingTestOptions options;
  options.transport = arguments.transport;
  options.silence_ms_max = arguments.silence_ms;
  BulkListener listener({});
  std::ofstream(arguments.files[arguments.rank]) << listener.address() << std::endl;
  std::vector<BulkPeer> members;
  for (uint32_t rank = 0; rank < arguments.ranks; ++rank)
    members.push_back({rank, member_name(rank), read_address(arguments.files[rank], soon()), host_id()});
  const auto session = test_session(uint32_t(arguments.rank), options);
  Ring ring(members, arguments.rank, connect_ring(listener, session, members, {}, soon()));

  kernels::BlockLayout layout;
  layout.append(arguments.elements, arguments.elements);
  const auto values = test_values(layout, arguments.rank);
  kernels::RoundedTotal total;
  for (int64_t step = 0; step < arguments.steps; ++step) {
    ring.reduce(ExactReduction{step,
                               &layout,
                               values,
                               &total,
                               {24, 5},
                               test_contributions(arguments.ranks),
                               buckets_last_first(layout, 100'000)},
                test_meta(arguments.rank), soon());
    std::cout << "step " << step << " " << sha256_hex(total.mantissa.data(), total.mantissa.size() * 4)
              << std::endl;
  }
}

}  // namespace

int main(int count, char** texts) {
  const std::vector<std::string> words(texts + 1, texts + count);
  const Arguments arguments{std::stoul(words[0]),
                            std::stoul(words[1]),
                            words[2] == "shm" ? Transport::shm : Transport::tcp,
                            std::stol(words[3]),
                            std::stol(words[4]),
                            std::stoi(words[5]),
                            {words.begin() + 6, words.end()}};
  try {
    run(arguments);
    std::cout << "done" << std::endl;
  } catch (const PeerError& error) {
    std::cout << "lost " << error.peer_rank() << " " << to_string(error.kind()) << ": " << error.what()
              << std::endl;
    return 1;
  } catch (const std::exception& error) {
    std::cout << "failed: " << error.what() << std::endl;
    return 2;
  }
  return 0;
}
