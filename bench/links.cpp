#include "bench/links.hpp"

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <sys/socket.h>

#include "comm/socket.hpp"
#include "kernels/base/error.hpp"

namespace troupe::bench {
namespace {

using comm::Clock;

constexpr size_t kPieceBytes = size_t{256} << 10, kPieces = 4;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// What one thread sends for so long, and another takes until the end.
double bytes_a_second(double seconds, const std::function<void()>& send_piece,
                      const std::function<void()>& end, const std::function<size_t()>& take) {
  std::thread sender([&] {
    for (const auto begin = Clock::now(); seconds_since(begin) < seconds;) send_piece();
    end();
  });
  const auto begin = Clock::now();
  double bytes = 0;
  while (const size_t taken = take()) bytes += double(taken);
  const double took = seconds_since(begin);
  sender.join();
  return bytes / took;
}

}  // namespace

double socket_rate(double seconds) {
  const auto deadline = comm::deadline_in_ms(int64_t(seconds * 1000) + 60'000);
  std::string address, why;
  const comm::Descriptor listener = comm::listen_on("127.0.0.1:0", address);
  const comm::Descriptor source = comm::connect_to(address, deadline, why);
  TROUPE_CHECK(source.valid() && comm::wait_readable(listener.get(), deadline), "{}", why);
  const comm::Descriptor sink = comm::accept_from(listener.get());
  std::vector<char> out(kPieceBytes), in(kPieceBytes);
  return bytes_a_second(
      seconds,
      [&] {
        if (send(source.get(), out.data(), out.size(), MSG_NOSIGNAL) < 0)
          comm::wait_writable(source.get(), deadline);
      },
      [&] { shutdown(source.get(), SHUT_WR); },
      [&] {
        for (;;) {
          const ssize_t count = recv(sink.get(), in.data(), in.size(), 0);
          if (count >= 0) return size_t(count);
          comm::wait_readable(sink.get(), deadline);
        }
      });
}

double shared_memory_rate(double seconds) {
  std::vector<char> ring(kPieces * kPieceBytes), out(kPieceBytes), in(kPieceBytes);
  alignas(64) std::atomic<size_t> written = 0;
  alignas(64) std::atomic<size_t> taken = 0;
  std::atomic<bool> ended = false;
  const auto piece = [&](size_t number) { return ring.data() + number % kPieces * kPieceBytes; };
  return bytes_a_second(
      seconds,
      [&] {
        const size_t number = written.load(std::memory_order_relaxed);
        while (number - taken.load(std::memory_order_acquire) == kPieces) std::this_thread::yield();
        std::memcpy(piece(number), out.data(), kPieceBytes);
        written.store(number + 1, std::memory_order_release);
      },
      [&] { ended = true; },
      [&]() -> size_t {
        const size_t number = taken.load(std::memory_order_relaxed);
        while (written.load(std::memory_order_acquire) == number) {
          if (ended && written.load() == number) return 0;
          std::this_thread::yield();
        }
        std::memcpy(in.data(), piece(number), kPieceBytes);
        taken.store(number + 1, std::memory_order_release);
        return kPieceBytes;
      });
}

}  // namespace troupe::bench
