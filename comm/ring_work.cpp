#include "comm/ring_work.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/block_codec.hpp"

namespace troupe::comm {
namespace {

// Integers packed losslessly on the way to their total, the rounded total packed on the way back.
class ExactWork : public RingWork {
 public:
  explicit ExactWork(const ExactReduction& reduction)
      : layout_(*reduction.layout),
        accumulator_(reduction.accumulator),
        rounding_(reduction.rounding),
        total_(*reduction.total) {
    TROUPE_CHECK(int64_t(accumulator_.size()) == layout_.elements(), "accumulator of {} for {} elements",
                 accumulator_.size(), layout_.elements());
    total_.resize(layout_);
  }

  int64_t elements(Bucket chunk) const override { return layout_.elements_in(chunk.begin, chunk.end); }

  void originate(Bucket chunk, FrameBuffer& out, size_t front) override {
    const auto room = out.resize_payload(front + kernels::encoded_bytes_max(layout_, chunk.begin, chunk.end));
    out.shrink_payload(
        front + kernels::encode_blocks(layout_, chunk.begin, chunk.end, own(chunk), room.subspan(front)));
  }

  void combine(Bucket chunk, std::span<const std::byte> in, FrameBuffer& out) override {
    const auto room = out.resize_payload(kernels::encoded_bytes_max(layout_, chunk.begin, chunk.end));
    out.shrink_payload(kernels::encode_sum(layout_, chunk.begin, chunk.end, own(chunk), in, room));
  }

  void complete(Bucket chunk, std::span<const std::byte> in, FrameBuffer& out) override {
    const auto room = out.resize_payload(kernels::encoded_total_bytes_max(layout_, chunk.begin, chunk.end));
    out.shrink_payload(kernels::encode_rounded_sum(layout_, chunk.begin, chunk.end, own(chunk), in, rounding_,
                                                   total_, room));
  }

  void store(Bucket chunk, std::span<const std::byte> in) override {
    kernels::decode_total(layout_, chunk.begin, chunk.end, in, total_);
  }

  void complete_alone(Bucket chunk) override {
    kernels::round_total(layout_, own(chunk), rounding_, chunk.begin, chunk.end, total_);
  }

  void gather(Bucket chunk, size_t, std::span<const std::byte> in) override {
    const auto values = own(chunk);
    if (gathered_.empty()) gathered_.assign(values.begin(), values.end());
    arrived_.resize(values.size());
    kernels::decode_blocks(layout_, chunk.begin, chunk.end, in, arrived_);
    for (size_t i = 0; i < arrived_.size(); ++i)  // modulo 2^64: bounds are the flags' business
      gathered_[i] = int64_t(uint64_t(gathered_[i]) + uint64_t(arrived_[i]));
  }
  void add_gathered(Bucket chunk, size_t) override {
    kernels::round_total(layout_, gathered_, rounding_, chunk.begin, chunk.end, total_);
  }

 private:
  std::span<const int64_t> own(Bucket chunk) const {
    if (chunk.begin == chunk.end) return {};
    return accumulator_.subspan(size_t(layout_.block(chunk.begin).offset), size_t(elements(chunk)));
  }

  const kernels::BlockLayout layout_;
  const std::span<const int64_t> accumulator_;
  const kernels::RoundOptions rounding_;
  kernels::RoundedTotal& total_;
  std::vector<int64_t> gathered_, arrived_;  // the sum so far, one member's
};

class FloatWork : public RingWork {
 public:
  explicit FloatWork(const FloatReduction& reduction) : values_(reduction.values) {}

  int64_t elements(Bucket chunk) const override { return chunk.end - chunk.begin; }

  void originate(Bucket chunk, FrameBuffer& out, size_t front) override {
    const auto values = own(chunk);
    copy(out.resize_payload(front + values.size_bytes()).subspan(front), std::as_bytes(values));
  }

  void combine(Bucket chunk, std::span<const std::byte> in, FrameBuffer& out) override {
    const auto values = own(chunk);
    check_size(chunk, in);
    add(values.data(), in.data(), out.resize_payload(values.size_bytes()).data(), values.size());
  }

  void complete(Bucket chunk, std::span<const std::byte> in, FrameBuffer& out) override {
    const auto values = own(chunk);
    check_size(chunk, in);
    add_and_keep(values.data(), in.data(), out.resize_payload(values.size_bytes()).data(), values.size());
  }

  void store(Bucket chunk, std::span<const std::byte> in) override {
    check_size(chunk, in);
    copy(std::as_writable_bytes(own(chunk)), in);
  }

  void complete_alone(Bucket) override {}

  void gather(Bucket chunk, size_t position, std::span<const std::byte> in) override {
    check_size(chunk, in);
    if (gathered_.size() <= position) gathered_.resize(position + 1);
    gathered_[position].resize(own(chunk).size());
    copy(std::as_writable_bytes(std::span(gathered_[position])), in);
  }
  // In the order of positions, which is the same at every member.
  void add_gathered(Bucket chunk, size_t own_position) override {
    const auto values = own(chunk);
    gathered_.resize(std::max(gathered_.size(), own_position + 1));
    gathered_[own_position].assign(values.begin(), values.end());
    for (size_t i = 0; i < values.size(); ++i) {
      float sum = gathered_[0][i];
      for (size_t position = 1; position < gathered_.size(); ++position) sum += gathered_[position][i];
      values[i] = sum;
    }
  }

 private:
  std::span<float> own(Bucket chunk) const {
    return values_.subspan(size_t(chunk.begin), size_t(chunk.end - chunk.begin));
  }
  static void copy(std::span<std::byte> to, std::span<const std::byte> from) {
    if (!from.empty()) std::memcpy(to.data(), from.data(), from.size());
  }
  void check_size(Bucket chunk, std::span<const std::byte> in) const {
    if (in.size() != own(chunk).size_bytes())
      throw error(ErrorKind::corrupt, "a chunk of {} floats has {} bytes", elements(chunk), in.size());
  }
  // Payloads lie unaligned in their buffers.
  static float sum_at(const float* own, const std::byte* in, size_t i) {
    float value;
    std::memcpy(&value, in + i * sizeof value, sizeof value);
    return value + own[i];
  }
  static void add(const float* __restrict own, const std::byte* __restrict in, std::byte* __restrict out,
                  size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const float sum = sum_at(own, in, i);
      std::memcpy(out + i * sizeof sum, &sum, sizeof sum);
    }
  }
  static void add_and_keep(float* __restrict own, const std::byte* __restrict in, std::byte* __restrict out,
                           size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const float sum = sum_at(own, in, i);
      own[i] = sum;
      std::memcpy(out + i * sizeof sum, &sum, sizeof sum);
    }
  }

  const std::span<float> values_;
  std::vector<std::vector<float>> gathered_;  // (members)
};

}  // namespace

std::unique_ptr<RingWork> make_exact_work(const ExactReduction& reduction) {
  return std::make_unique<ExactWork>(reduction);
}
std::unique_ptr<RingWork> make_float_work(const FloatReduction& reduction) {
  return std::make_unique<FloatWork>(reduction);
}

}  // namespace troupe::comm
