#include "bench/timed_backend.hpp"

#include <chrono>

namespace troupe::bench {
namespace {

using namespace troupe::kernels;
using Clock = std::chrono::steady_clock;

// Folds within an operation of another part, from which their time is taken.
class TimedSink final : public GradientSink {
 public:
  TimedSink(GradientSink& sink, PartSeconds& seconds, Part within)
      : sink_(sink), seconds_(seconds), within_(within) {}

  void fold(int64_t offset, ConstView gradient) override {
    timed([&] { sink_.fold(offset, gradient); });
  }
  void fold_rows(int64_t offset, std::span<const int32_t> rows, ConstView gradient) override {
    timed([&] { sink_.fold_rows(offset, rows, gradient); });
  }
  void whole_from(int64_t offset) override { sink_.whole_from(offset); }

 private:
  template <typename Fold>
  void timed(Fold&& fold) {
    const auto begin = Clock::now();
    fold();
    const double took = std::chrono::duration<double>(Clock::now() - begin).count();
    seconds_[size_t(Part::folding)] += took;
    seconds_[size_t(within_)] -= took;
  }

  GradientSink& sink_;
  PartSeconds& seconds_;
  const Part within_;
};

class TimedStream final : public Stream {
 public:
  TimedStream(std::unique_ptr<Stream> stream, std::shared_ptr<PartSeconds> seconds)
      : stream_(std::move(stream)), seconds_(std::move(seconds)) {}

  void linear_forward(ConstView x, PackedWeight weight, ConstView bias, View y) override {
    const Timer timer(*seconds_, Part::linear);
    stream_->linear_forward(x, weight, bias, y);
  }
  void linear_backward_input(ConstView dy, PackedWeight weight, View dx, bool accumulate) override {
    const Timer timer(*seconds_, Part::linear);
    stream_->linear_backward_input(dy, weight, dx, accumulate);
  }
  void linear_backward_weight(ConstView dy, ConstView x, View dw, View dbias) override {
    const Timer timer(*seconds_, Part::linear);
    stream_->linear_backward_weight(dy, x, dw, dbias);
  }
  void attention_forward(const AttentionShape& shape, ConstView q, ConstView k, ConstView v, View out,
                         View lse) override {
    const Timer timer(*seconds_, Part::attention);
    stream_->attention_forward(shape, q, k, v, out, lse);
  }
  void attention_backward(const AttentionShape& shape, ConstView q, ConstView k, ConstView v, ConstView out,
                          ConstView lse, ConstView dout, View dq, View dk, View dv) override {
    const Timer timer(*seconds_, Part::attention);
    stream_->attention_backward(shape, q, k, v, out, lse, dout, dq, dk, dv);
  }
  LossSums cross_entropy(const CrossEntropy& args) override {
    const Timer timer(*seconds_, Part::vocabulary);
    if (args.sink == nullptr) return stream_->cross_entropy(args);
    TimedSink sink(*args.sink, *seconds_, Part::vocabulary);
    CrossEntropy timed = args;
    timed.sink = &sink;
    return stream_->cross_entropy(timed);
  }
  void residual_norm_forward(const ResidualNorm& args) override {
    const Timer timer(*seconds_, Part::pointwise);
    stream_->residual_norm_forward(args);
  }
  void residual_norm_backward(const ResidualNormGrad& args) override {
    const Timer timer(*seconds_, Part::pointwise);
    stream_->residual_norm_backward(args);
  }
  void rotate(View x, ConstView turns, bool inverse) override {
    const Timer timer(*seconds_, Part::pointwise);
    stream_->rotate(x, turns, inverse);
  }
  void activation_forward(Activation kind, ConstView x, Dropout dropout, View y) override {
    const Timer timer(*seconds_, Part::pointwise);
    stream_->activation_forward(kind, x, dropout, y);
  }
  void activation_backward(Activation kind, ConstView x, Dropout dropout, ConstView dy, View dx) override {
    const Timer timer(*seconds_, Part::pointwise);
    stream_->activation_backward(kind, x, dropout, dy, dx);
  }
  void embedding_forward(std::span<const int32_t> ids, ConstView table, ConstView positions, float scale,
                         Dropout dropout, View out) override {
    const Timer timer(*seconds_, Part::pointwise);
    stream_->embedding_forward(ids, table, positions, scale, dropout, out);
  }
  void embedding_backward(std::span<const int32_t> ids, int32_t pad_id, float scale, Dropout dropout,
                          ConstView dout, GradientSink& sink, int64_t offset, View dpositions) override {
    const Timer timer(*seconds_, Part::pointwise);
    TimedSink timed(sink, *seconds_, Part::pointwise);
    stream_->embedding_backward(ids, pad_id, scale, dropout, dout, timed, offset, dpositions);
  }
  void convert(ConstView from, View to) override {
    const Timer timer(*seconds_, Part::pointwise);
    stream_->convert(from, to);
  }
  void add(ConstView x, View y) override {
    const Timer timer(*seconds_, Part::pointwise);
    stream_->add(x, y);
  }
  void fill_zero(View y) override {
    const Timer timer(*seconds_, Part::pointwise);
    stream_->fill_zero(y);
  }

  Device device() const override { return stream_->device(); }
  void synchronize() override { stream_->synchronize(); }
  size_t packed_bytes(int64_t n, int64_t k, PackedType type) const override {
    return stream_->packed_bytes(n, k, type);
  }
  PackedWeight pack(ConstView master, PackedType type, void* destination) override {
    return stream_->pack(master, type, destination);
  }
  void block_square_sums(const BlockLayout& layout, const RoundedTotal& total, int64_t begin, int64_t end,
                         double* sums) override {
    stream_->block_square_sums(layout, total, begin, end, sums);
  }
  void adamw(const AdamW& args, const BlockLayout& layout, const RoundedTotal& total, int64_t begin,
             int64_t end, float* weight, float* moment1, float* moment2) override {
    stream_->adamw(args, layout, total, begin, end, weight, moment1, moment2);
  }
  void log_softmax_topk(ConstView logits, int64_t k, View values, View ids) override {
    stream_->log_softmax_topk(logits, k, values, ids);
  }

 private:
  class Timer {
   public:
    Timer(PartSeconds& seconds, Part part) : seconds_(seconds[size_t(part)]) {}
    ~Timer() { seconds_ += std::chrono::duration<double>(Clock::now() - begin_).count(); }

   private:
    double& seconds_;
    const Clock::time_point begin_ = Clock::now();
  };

  std::unique_ptr<Stream> stream_;
  std::shared_ptr<PartSeconds> seconds_;
};

}  // namespace

std::unique_ptr<Stream> TimedBackend::create_stream() {
  const auto seconds = std::make_shared<PartSeconds>();
  {
    const std::lock_guard lock(mutex_);
    seconds_.push_back(seconds);
  }
  return std::make_unique<TimedStream>(backend_->create_stream(), seconds);
}

PartSeconds TimedBackend::take() {
  const std::lock_guard lock(mutex_);
  PartSeconds sum{};
  for (const auto& seconds : seconds_) {
    for (size_t part = 0; part < kParts; ++part) sum[part] += (*seconds)[part];
    seconds->fill(0);
  }
  return sum;
}

}  // namespace troupe::bench
