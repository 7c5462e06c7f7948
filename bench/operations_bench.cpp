// Speed of the operations between the matrix products (residual and layer norm, activations, embedding), on
// one thread and hot in cache as they run in a slot, in nanoseconds an element. bf16, rows of 256 and 1024
// channels. Usage: bench_operations [rows]
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "kernels/accumulator.hpp"
#include "kernels/base/random.hpp"
#include "kernels/cpu/backend.hpp"

namespace {

using namespace troupe;
using namespace troupe::kernels;
using Clock = std::chrono::steady_clock;

constexpr int64_t kCols = 256, kInner = 1024, kVocabulary = 8192;

class Bench {
 public:
  explicit Bench(int64_t rows)
      : rows_(rows),
        backend_(make_cpu_backend()),
        stream_(backend_->create_stream()),
        channel_(size_t(kCols), 0.5f) {
    for (auto* wide : {&a_, &b_, &c_}) wide->assign(size_t(rows * kInner), 0x3f00);
    for (auto* f32 : {&x_, &sum_, &gradient_}) f32->assign(size_t(rows * kCols), 0.5f);
    for (auto* moments : {&mean_, &rstd_}) moments->assign(size_t(rows), 0.5f);
    for (auto* sums : {&dgamma_, &dbeta_}) sums->assign(size_t(kCols), 0.0f);
  }

  void run() {
    fmt::print("{}, {} rows\n", backend_->description(), rows_);
    for (float rate : {0.0f, 0.1f}) {
      dropout_ = {rate, 7};
      suffix_ = rate > 0 ? ", dropout" : "";
      norm();
      activation(Activation::relu, "ReLU");
      activation(Activation::gelu, "GELU");
      embedding();
    }
  }

 private:
  void report(const std::string& what, int64_t cols, const std::function<void()>& work) const {
    double best = 1e9;
    for (int run = 0; run < 7; ++run) {
      const auto begin = Clock::now();
      work();
      best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
    }
    fmt::print("{:44} {:8.3f} ms {:6.2f} ns an element\n", what + suffix_, best * 1e3,
               best * 1e9 / double(rows_ * cols));
  }

  void norm() {
    report("residual and layer norm, forward", kCols, [&] {
      ResidualNorm args;
      args.x = view_of(x_.data(), rows_, kCols);
      args.y = view_of(a_.data(), rows_, kCols);
      args.dropout = dropout_;
      args.gamma = args.beta = view_of(channel_.data(), 1, kCols);
      args.sum = view_of(sum_.data(), rows_, kCols);
      args.normed = view_of(b_.data(), rows_, kCols);
      args.mean = view_of(mean_.data(), 1, rows_);
      args.rstd = view_of(rstd_.data(), 1, rows_);
      stream_->residual_norm_forward(args);
    });
    report("residual and layer norm, backward", kCols, [&] {
      ResidualNormGrad args;
      args.dnormed = view_of(b_.data(), rows_, kCols);
      args.dsum_in = args.dsum = view_of(gradient_.data(), rows_, kCols);
      args.sum = view_of(sum_.data(), rows_, kCols);
      args.gamma = view_of(channel_.data(), 1, kCols);
      args.mean = view_of(mean_.data(), 1, rows_);
      args.rstd = view_of(rstd_.data(), 1, rows_);
      args.dropout = dropout_;
      args.dy = view_of(c_.data(), rows_, kCols);
      args.dgamma = view_of(dgamma_.data(), 1, kCols);
      args.dbeta = view_of(dbeta_.data(), 1, kCols);
      stream_->residual_norm_backward(args);
    });
  }

  void activation(Activation kind, const std::string& name) {
    const View x = view_of(a_.data(), rows_, kInner), y = view_of(b_.data(), rows_, kInner);
    report(name + " forward", kInner, [&] { stream_->activation_forward(kind, x, dropout_, y); });
    report(name + " backward", kInner,
           [&] { stream_->activation_backward(kind, x, dropout_, y, view_of(c_.data(), rows_, kInner)); });
  }

  void embedding() {
    std::vector<int32_t> ids;
    for (int64_t row = 0; row < rows_; ++row) ids.push_back(int32_t(mix64(1, uint64_t(row)) % kVocabulary));
    const std::vector<float> table(size_t(kVocabulary * kCols), 0.5f);
    report("embedding forward", kCols, [&] {
      stream_->embedding_forward(ids, view_of(table.data(), kVocabulary, kCols),
                                 view_of(x_.data(), 64, kCols), 16, dropout_,
                                 view_of(sum_.data(), rows_, kCols));
    });
    BlockLayout layout;
    layout.append(kVocabulary * kCols, kCols);
    ExactAccumulator sums(layout);
    report("embedding backward with its fold", kCols, [&] {
      ExactSink sink(sums, {});
      stream_->embedding_backward(ids, 0, 16, dropout_, view_of(x_.data(), rows_, kCols), sink, 0, {});
    });
  }

  int64_t rows_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  Dropout dropout_;
  std::string suffix_;
  std::vector<uint16_t> a_, b_, c_;
  std::vector<float> x_, sum_, gradient_, channel_, mean_, rstd_, dgamma_, dbeta_;
};

}  // namespace

int main(int argc, char** argv) {
  const int64_t rows = argc > 1 ? std::atoll(argv[1]) : 2048;
  Bench(std::max<int64_t>(rows, 64)).run();
  return 0;
}
