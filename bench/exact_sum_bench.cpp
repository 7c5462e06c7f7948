// Speed of the exact sums and of the operations that memory bounds, on one thread and on all of them, beside
// what reading and copying memory gives in the same run. Prints one line a figure: GB/s counts the bytes that
// have to cross the memory bus (gradients that an operation finds in cache count nothing), the share is that
// of reading or copying, whichever was faster. Usage: bench_exact_sum [millions of elements]
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "kernels/accumulator.hpp"
#include "kernels/base/random.hpp"
#include "kernels/block_codec.hpp"
#include "kernels/cpu/backend.hpp"

namespace {

using namespace troupe;
using namespace troupe::kernels;
using Clock = std::chrono::steady_clock;

// Seconds of the fastest of three runs of `work(thread, stream)` on `threads` threads at once.
using Work = std::function<void(int thread, Stream& stream)>;
double seconds_of(int threads, const Work& work) {
  double best = 1e9;
  for (int run = 0; run < 3; ++run) {
    const auto begin = Clock::now();
    std::vector<std::thread> running;
    for (int t = 0; t < threads; ++t)
      running.emplace_back([&, t] {
        const auto backend = make_cpu_backend();
        const auto stream = backend->create_stream();
        work(t, *stream);
      });
    for (std::thread& thread : running) thread.join();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return best;
}

class Bench {
 public:
  explicit Bench(int64_t elements) : layout_(layout_of(elements)), sums_(layout_), other_(layout_) {
    std::ranges::fill(sums_.values(), 1);  // pages that were never written are no memory
    std::ranges::fill(other_.values(), 1);
    for (size_t i = 0; i < gradient_.size(); ++i) {
      const auto w = philox_from(1)(i);
      gradient_[i] = (float(w[0]) + float(w[1]) + float(w[2]) - 0x1.8p33f) * 0x1p-42f;
    }
  }

  void run() {
    for (int threads : {1, int(std::max(2u, std::thread::hardware_concurrency()))}) {
      threads_ = threads;
      machine();
      folds();
      totals();
      optimizer();
    }
    codec();
  }

 private:
  static BlockLayout layout_of(int64_t elements) {
    BlockLayout layout;
    layout.append(elements / 512 * 512, 512);
    return layout;
  }
  int64_t elements() const { return layout_.elements(); }

  // `bytes` over all threads.
  void report(const std::string& what, double bytes, const Work& work) {
    const double seconds = seconds_of(threads_, work);
    fmt::print("{:44} {} threads {:8.1f} ms {:6.1f} GB/s", what, threads_, seconds * 1e3,
               bytes / seconds * 1e-9);
    if (what == "read memory") ceiling_ = 0;
    if (what.ends_with(" memory")) ceiling_ = std::max(ceiling_, bytes / seconds);
    fmt::print("  {:3.0f} %\n", 100 * bytes / seconds / ceiling_);
  }
  // Thread t's part of the blocks.
  std::pair<int64_t, int64_t> part(int t) const {
    return {layout_.blocks() * t / threads_, layout_.blocks() * (t + 1) / threads_};
  }
  template <typename T>
  std::span<T> range(std::span<T> all, std::pair<int64_t, int64_t> blocks) const {
    return all.subspan(size_t(layout_.block(blocks.first).offset),
                       size_t(layout_.elements_in(blocks.first, blocks.second)));
  }

  void machine() {
    const double bytes = double(elements()) * 8;
    report("read memory", bytes, [&](int t, Stream&) {
      uint64_t any[8] = {};
      const auto values = range(std::span<const int64_t>(sums_.values()), part(t));
      for (size_t i = 0; i + 8 <= values.size(); i += 8)
        for (size_t lane = 0; lane < 8; ++lane) any[lane] |= uint64_t(values[i + lane]);
      sink_ = sink_ | any[0] | any[3];
    });
    report("copy memory", 2 * bytes, [&](int t, Stream&) {
      const auto from = range(std::span<const int64_t>(sums_.values()), part(t));
      std::memcpy(range(other_.values(), part(t)).data(), from.data(), from.size_bytes());
    });
  }

  void folds() {
    const double bytes = double(elements()) * 16;
    for (int bits : {24, 8}) {
      report(fmt::format("fold, {} bits (hot f32 to cold i64)", bits), bytes, [&](int t, Stream&) {
        ExactSink sink(sums_, {bits, 8, uint64_t(t)});
        fold_all(sink, t);
      });
    }
    FloatAccumulator floats(layout_);
    std::ranges::fill(floats.values(), 1.0f);
    report("fold, float sum (hot f32 to cold f32)", bytes / 2, [&](int t, Stream&) {
      FloatSink sink(floats);
      fold_all(sink, t);
    });
  }
  void fold_all(GradientSink& sink, int t) {
    const auto [begin, end] = part(t);
    const int64_t piece = int64_t(gradient_.size()) / kBlockMax;
    for (int64_t block = begin; block < end; block += piece) {
      const int64_t count = layout_.elements_in(block, std::min(end, block + piece));
      sink.fold(layout_.block(block).offset, view_of(gradient_.data(), 1, count));
    }
  }

  void totals() {
    total_.resize(layout_);
    for (int bits : {24, 8}) {
      report(fmt::format("round the total, job of {} bits", bits), double(elements()) * 12,
             [&](int t, Stream&) {
               const auto [begin, end] = part(t);
               const std::span<const int64_t> values = sums_.values();
               round_total(layout_, range(values, {begin, end}), {bits, 5}, begin, end, total_);
             });
    }
  }

  void optimizer() {
    std::vector<double> squares(size_t(layout_.blocks()));
    report("squares for the clipping norm", double(elements()) * 4, [&](int t, Stream& stream) {
      const auto [begin, end] = part(t);
      stream.block_square_sums(layout_, total_, begin, end, squares.data() + begin);
    });
    if (weights_.empty()) weights_.assign(size_t(elements()) * 3, 0.1f);
    AdamW rule;
    rule.learning_rate = 1e-3f;
    report("AdamW", double(elements()) * 28, [&](int t, Stream& stream) {
      const auto [begin, end] = part(t);
      float* w = weights_.data();
      stream.adamw(rule, layout_, total_, begin, end, w, w + elements(), w + 2 * elements());
    });
  }

  // Sums of eight slots, in chunks of 256 KiB that stay in cache, as the ring handles them.
  void codec() {
    threads_ = 1;
    for (int bits : {24, 8, 4}) {
      sums_.clear();
      for (uint64_t slot = 0; slot < 8; ++slot) {
        ExactSink sink(sums_, {bits, 8, slot});
        fold_all(sink, 0);
        std::rotate(gradient_.begin(), gradient_.begin() + 12345, gradient_.end());
      }
      const int64_t chunk = 128;
      const double bytes = double(elements()) * 8;
      const auto each_chunk = [&](const auto& visit) {
        for (int64_t begin = 0; begin < layout_.blocks(); begin += chunk)
          visit(begin, std::min(begin + chunk, layout_.blocks()),
                range(sums_.values(), {begin, std::min(begin + chunk, layout_.blocks())}));
      };
      const size_t room = encoded_bytes_max(layout_, 0, std::min(chunk, layout_.blocks()));
      std::vector<std::byte> out(room);
      std::vector<std::vector<std::byte>> packed(size_t((layout_.blocks() + chunk - 1) / chunk),
                                                 std::vector<std::byte>(room));
      report(fmt::format("pack sums of {} bits", bits), bytes, [&](int, Stream&) {
        each_chunk([&](int64_t begin, int64_t end, std::span<int64_t> values) {
          auto& bytes_of = packed[size_t(begin / chunk)];
          bytes_of.resize(room);
          bytes_of.resize(encode_blocks(layout_, begin, end, values, bytes_of));
        });
      });
      size_t size = 0;
      for (const auto& bytes_of : packed) size += bytes_of.size();
      fmt::print("{:44} {:.2f} bits an element\n", "  packed", 8.0 * double(size) / double(elements()));
      report(fmt::format("unpack sums of {} bits", bits), bytes, [&](int, Stream&) {
        each_chunk([&](int64_t begin, int64_t end, std::span<int64_t>) {
          decode_blocks(layout_, begin, end, packed[size_t(begin / chunk)],
                        range(other_.values(), {begin, end}));
        });
      });
      report(fmt::format("unpack, add and pack sums of {} bits", bits), bytes, [&](int, Stream&) {
        each_chunk([&](int64_t begin, int64_t end, std::span<int64_t> values) {
          encode_sum(layout_, begin, end, values, packed[size_t(begin / chunk)], out);
        });
      });
      report(fmt::format("unpack, add, round and pack, {} bits", bits), bytes, [&](int, Stream&) {
        each_chunk([&](int64_t begin, int64_t end, std::span<int64_t> values) {
          const size_t encoded = encode_rounded_sum(layout_, begin, end, values,
                                                    packed[size_t(begin / chunk)], {bits, 8}, total_, out);
          if (begin == 0) total_bytes_.assign(out.begin(), out.begin() + int64_t(encoded));
        });
      });
      report(fmt::format("unpack totals of {} bits", bits), bytes, [&](int, Stream&) {
        each_chunk([&](int64_t, int64_t, std::span<int64_t>) {
          decode_total(layout_, 0, std::min(chunk, layout_.blocks()), total_bytes_, total_);
        });
      });
    }
  }

  BlockLayout layout_;
  ExactAccumulator sums_, other_;
  std::vector<float> gradient_ = std::vector<float>(size_t{1} << 17);
  std::vector<float> weights_;
  RoundedTotal total_;
  std::vector<std::byte> total_bytes_;  // of the first chunk
  int threads_ = 1;
  double ceiling_ = 1;
  volatile uint64_t sink_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const double millions = argc > 1 ? std::atof(argv[1]) : 63;
  if (argc > 2 || millions < 0.1 || millions > 1000) {
    fmt::print(stderr, "usage: bench_exact_sum [MILLIONS of elements, 0.1 to 1000; 63 if not given]\n");
    return 2;
  }
  fmt::print("{}, {} million elements\n", make_cpu_backend()->description(), millions);
  Bench(int64_t(millions * 1e6)).run();
  return 0;
}
