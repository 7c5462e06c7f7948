// Bus bandwidth of the ring allreduce between processes of this machine, beside what its sockets carry in the
// same run.
//   bench_allreduce [RANKS...]     default: 2 4
// Bus bandwidth is 2 (N-1)/N * bytes / time (as NCCL's tests define it), with 4 bytes an element: for an
// exact sum it says how fast a gradient of as many f32 would have had to go. "link" is a plain socket a
// neighbour, every process sending to the next and receiving from the previous at once, without checksums:
// the most that a ring could do.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/ring.hpp"
#include "comm/shared_memory.hpp"
#include "comm/socket.hpp"
#include "kernels/base/random.hpp"

using namespace troupe;
using namespace troupe::comm;

namespace {

constexpr int64_t kSizes[] = {4 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20};

struct Rank {
  size_t rank = 0, ranks = 1;
  BulkListener& listener;
  std::vector<BulkPeer> members;
};

Deadline soon() {
  return deadline_in_ms(120'000);
}

// Runs `body` as `ranks` processes that know one another's addresses.
void fork_ranks(size_t ranks, const std::function<void(Rank&)>& body) {
  std::vector<std::array<int, 2>> to_child(ranks), to_parent(ranks);
  std::vector<pid_t> children;
  std::fflush(stdout);
  for (size_t rank = 0; rank < ranks; ++rank) {
    if (pipe(to_child[rank].data()) != 0 || pipe(to_parent[rank].data()) != 0) std::exit(1);
    children.push_back(fork());
    if (children.back() != 0) continue;
    BulkListener listener({});
    std::array<char, 64> text{};
    listener.address().copy(text.data(), text.size() - 1);
    if (write(to_parent[rank][1], text.data(), text.size()) != ssize_t(text.size())) _exit(1);
    Rank self{rank, ranks, listener, {}};
    for (uint32_t other = 0; other < ranks; ++other) {
      if (read(to_child[rank][0], text.data(), text.size()) != ssize_t(text.size())) _exit(1);
      self.members.push_back({other, "bench", text.data(), host_id()});
    }
    body(self);
    std::fflush(stdout);
    _exit(0);
  }
  std::vector<std::array<char, 64>> addresses(ranks);
  for (size_t rank = 0; rank < ranks; ++rank)
    if (read(to_parent[rank][0], addresses[rank].data(), 64) != 64) std::exit(1);
  for (size_t rank = 0; rank < ranks; ++rank)
    for (const auto& address : addresses)
      if (write(to_child[rank][1], address.data(), 64) != 64) std::exit(1);
  for (const pid_t child : children) waitpid(child, nullptr, 0);
  for (auto* pipes : {&to_child, &to_parent})
    for (const auto& ends : *pipes) close(ends[0]), close(ends[1]);
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median_seconds(int64_t bytes, const std::function<void()>& once) {
  const int64_t rounds = std::clamp<int64_t>((256 << 20) / bytes, 5, 200);
  once();
  std::vector<double> seconds;
  for (int64_t i = 0; i < rounds; ++i) {
    const auto begin = Clock::now();
    once();
    seconds.push_back(seconds_since(begin));
  }
  std::nth_element(seconds.begin(), seconds.begin() + rounds / 2, seconds.end());
  return seconds[size_t(rounds / 2)];
}

BulkSession session_of(const Rank& self, Transport transport) {
  BulkSession session;
  session.key = std::string(32, 'b');
  session.rank = uint32_t(self.rank);
  session.host_id = host_id();
  session.transport = transport;
  session.silence_ms_max = 30'000;
  return session;
}

void move_all(int fd, std::span<char> buffer, int64_t bytes, bool sends) {
  while (bytes > 0) {
    const size_t piece = size_t(std::min<int64_t>(bytes, int64_t(buffer.size())));
    const ssize_t count =
        sends ? send(fd, buffer.data(), piece, MSG_NOSIGNAL) : recv(fd, buffer.data(), piece, 0);
    if (count > 0) bytes -= count;
    if (count <= 0) (sends ? wait_writable : wait_readable)(fd, soon());
  }
}

// Every process sends `bytes` to the next one and receives as many: GB/s on each link.
void measure_link(Rank& self, bool both) {
  std::string address, why;
  const Descriptor listener = listen_on("127.0.0.1:0", address);
  // The addresses of these plain sockets go round through a ring of ours.
  Ring ring(self.members, self.rank,
            connect_ring(self.listener, session_of(self, Transport::tcp), self.members, {}, soon()));
  std::vector<std::string> addresses;
  for (size_t root = 0; root < self.ranks; ++root) {
    std::vector<std::byte> text;
    if (root == self.rank)
      text.assign(reinterpret_cast<const std::byte*>(address.data()),
                  reinterpret_cast<const std::byte*>(address.data()) + address.size());
    ring.broadcast(root, text, 100, soon());
    addresses.emplace_back(reinterpret_cast<const char*>(text.data()), text.size());
  }
  const Descriptor next = connect_to(addresses[(self.rank + 1) % self.ranks], soon(), why);
  wait_readable(listener.get(), soon());
  const Descriptor previous = accept_from(listener.get());
  constexpr int64_t kBytes = int64_t{512} << 20;
  const auto begin = Clock::now();
  std::vector<char> out(256 << 10), in(256 << 10);
  std::thread sender;
  if (both || self.rank == 0) sender = std::thread([&] { move_all(next.get(), out, kBytes, true); });
  if (both || self.rank == 1) move_all(previous.get(), in, kBytes, false);
  if (sender.joinable()) sender.join();
  if (self.rank == 1)
    std::printf("| %zu | tcp | %s | | %.2f | | |\n", self.ranks, both ? "link, all at once" : "link, one way",
                double(kBytes) / seconds_since(begin) * 1e-9);
  std::vector<std::byte> nothing;
  ring.broadcast(0, nothing, 1, soon());  // the others leave when all are done
}

// What a rank's accumulator holds after four slots of `bits` bits: nearly normal within a block, blocks of
// any size.
std::vector<int64_t> gradient_sums(int64_t elements, size_t rank, int bits) {
  const Philox philox = philox_from(mix64(7, rank));
  std::vector<int64_t> values(static_cast<size_t>(elements));
  for (int64_t i = 0; i < elements; ++i) {
    const auto draw = philox(uint64_t(i));
    int64_t sum = 0;
    for (const uint32_t part : draw) sum += int64_t(part >> (32 - bits)) - (int64_t{1} << (bits - 1));
    values[size_t(i)] = sum << (philox(uint64_t(i / 256), 1)[0] % 8);
  }
  return values;
}

void print_row(const Rank& self, const char* transport, const std::string& what, int64_t bytes,
               double seconds, const std::string& bits) {
  const double bus = 2.0 * double(self.ranks - 1) / double(self.ranks) * double(bytes) / seconds * 1e-9;
  if (self.rank == 0)
    std::printf("| %zu | %s | %s | %ld KiB | %.2f | %.0f | %s |\n", self.ranks, transport, what.c_str(),
                long(bytes >> 10), bus, seconds * 1e6, bits.c_str());
}

void measure_ring(Rank& self, Transport transport) {
  const char* name = transport == Transport::tcp ? "tcp" : "shm";
  Ring ring(self.members, self.rank,
            connect_ring(self.listener, session_of(self, transport), self.members, {}, soon()));
  std::vector<std::vector<uint64_t>> slots;
  for (size_t rank = 0; rank < self.ranks; ++rank) slots.push_back({uint64_t{1} << rank});
  int64_t step = 0;
  for (const int64_t bytes : kSizes) {
    std::vector<float> values(size_t(bytes / 4), 1.0f);
    const double seconds = median_seconds(bytes, [&] {
      ring.reduce(FloatReduction{++step, values, slots, {{0, bytes / 4}}}, {}, soon());
    });
    print_row(self, name, "floats", bytes, seconds, "32");
  }
  for (const int bits : {24, 8})
    for (const int64_t bytes : kSizes) {
      kernels::BlockLayout layout;
      layout.append(bytes / 4, bytes / 4);
      const auto values = gradient_sums(bytes / 4, self.rank, bits);
      kernels::RoundedTotal total;
      const double seconds = median_seconds(bytes, [&] {
        ring.reduce(ExactReduction{++step, &layout, values, &total, {bits, 5}, slots, {{0, layout.blocks()}}},
                    {}, soon());
      });
      const RingStats stats = ring.stats();
      const double wire =
          double(stats.bytes_sent) * 8 / double(stats.elements_reduced + stats.elements_gathered);
      print_row(self, name, fmt::format("exact, {} bits", bits), bytes, seconds, fmt::format("{:.1f}", wire));
    }
}

}  // namespace

int main(int count, char** words) {
  std::vector<size_t> ranks;
  for (int i = 1; i < count; ++i) ranks.push_back(std::stoul(words[i]));
  if (ranks.empty()) ranks = {2, 4};
  std::printf(
      "| processes | transport | what | size | GB/s (bus) | us | bits an element "
      "|\n|---|---|---|---|---|---|---|\n");
  fork_ranks(2, [](Rank& self) { measure_link(self, false); });
  for (const size_t n : ranks) {
    fork_ranks(n, [](Rank& self) { measure_link(self, true); });
    for (const Transport transport : {Transport::tcp, Transport::shm})
      fork_ranks(n, [&](Rank& self) { measure_ring(self, transport); });
  }
}
