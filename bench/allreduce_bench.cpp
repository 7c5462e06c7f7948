// The ring allreduce between processes of this machine, or what its sockets carry. Prints one JSON line. See
// --help. Bus bandwidth is 2 (N-1)/N * bytes / time (as NCCL's tests define it), with 4 bytes an element: for
// an exact sum it says how fast a gradient of as many f32 would have had to go. "link" is a plain socket a
// neighbour, every process sending to the next and receiving from the previous at once, without checksums:
// the most that a ring could do.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
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

struct Options {
  size_t processes = 2;
  std::string transport = "tcp", sum = "exact";
  int bits = 24;
  int64_t bytes = 64 << 20, rounds = 15;
  RingOptions ring;

  std::string mode() const {
    if (transport == "link") return "plain sockets, all at once";
    return transport + ", " + (sum == "float" ? "float" : fmt::format("exact, {} bits", bits));
  }
};

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

// The median time of `once`, which all processes do together.
double median_seconds(int64_t rounds, const std::function<void()>& once) {
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

void print(const Options& options, double bus_bytes, double seconds, double wire_bits) {
  fmt::print(
      "{{\"system\":\"troupe\",\"mode\":\"{}\",\"processes\":{},\"bytes\":{},\"gb_per_s\":{:.3f},\"us\":{:."
      "1f},"
      "\"wire_bits\":{:.1f}}}\n",
      options.mode(), options.processes, options.bytes, bus_bytes / seconds * 1e-9, seconds * 1e6, wire_bits);
}

// Every process sends to the next one and receives as much.
void measure_link(Rank& self, const Options& options) {
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
  std::thread sender([&] { move_all(next.get(), out, kBytes, true); });
  move_all(previous.get(), in, kBytes, false);
  sender.join();
  if (self.rank == 1) print(options, double(kBytes), seconds_since(begin), 32);
  std::vector<std::vector<uint64_t>> slots(self.ranks);
  float done = 1;
  // Nobody leaves before all are done.
  ring.reduce(FloatReduction{1, {&done, 1}, slots, {{0, 1}}}, {}, soon());
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

void measure_ring(Rank& self, const Options& options) {
  const Transport transport = options.transport == "tcp" ? Transport::tcp : Transport::shm;
  Ring ring(self.members, self.rank,
            connect_ring(self.listener, session_of(self, transport), self.members, {}, soon()), options.ring);
  std::vector<std::vector<uint64_t>> slots;
  for (size_t rank = 0; rank < self.ranks; ++rank) slots.push_back({uint64_t{1} << rank});
  const int64_t elements = options.bytes / 4;
  int64_t step = 0;
  double seconds = 0, wire_bits = 32;
  if (options.sum == "float") {
    std::vector<float> values(static_cast<size_t>(elements), 1.0f);
    seconds = median_seconds(options.rounds, [&] {
      ring.reduce(FloatReduction{++step, values, slots, {{0, elements}}}, {}, soon());
    });
  } else {
    kernels::BlockLayout layout;
    layout.append(elements, elements);
    const auto values = gradient_sums(elements, self.rank, options.bits);
    kernels::RoundedTotal total;
    seconds = median_seconds(options.rounds, [&] {
      ring.reduce(
          ExactReduction{++step, &layout, values, &total, {options.bits, 5}, slots, {{0, layout.blocks()}}},
          {}, soon());
    });
    const RingStats stats = ring.stats();
    wire_bits = double(stats.bytes_sent) * 8 / double(stats.elements_reduced + stats.elements_gathered);
  }
  const double share = 2.0 * double(self.ranks - 1) / double(self.ranks);
  if (self.rank == 0) print(options, share * double(options.bytes), seconds, wire_bits);
}

}  // namespace

int main(int count, char** words) {
  Options options;
  CLI::App app{"The ring allreduce between processes of this machine"};
  app.add_option("--processes", options.processes)->check(CLI::Range(2, 64))->capture_default_str();
  app.add_option("--transport", options.transport, "tcp, shm; link: plain sockets, all at once")
      ->check(CLI::IsMember({"tcp", "shm", "link"}))
      ->capture_default_str();
  app.add_option("--sum", options.sum)->check(CLI::IsMember({"exact", "float"}))->capture_default_str();
  app.add_option("--bits", options.bits, "Of an exact slot")->check(CLI::Range(4, 24))->capture_default_str();
  app.add_option("--bytes", options.bytes, "Of f32 to be summed")
      ->check(CLI::Range(int64_t{1024}, int64_t{1} << 32))
      ->capture_default_str();
  app.add_option("--chunk", options.ring.chunk_elements_max, "Elements of a chunk")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--groups", options.ring.groups_in_flight,
                 "Groups of chunks under way; 0: the ring's choice")
      ->check(CLI::Range(0, 100))
      ->capture_default_str();
  app.add_option("--rounds", options.rounds)->check(CLI::Range(1, 1'000'000))->capture_default_str();
  CLI11_PARSE(app, count, words);
  fork_ranks(options.processes,
             [&](Rank& self) { (options.transport == "link" ? measure_link : measure_ring)(self, options); });
}
