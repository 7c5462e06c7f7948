// Where the gradients of a node's slots are added up. An accumulator holds one number per element of a
// BlockLayout; a sink is what one slot folds into while it runs on one thread. Any number of sinks fold into
// one accumulator at once: groups of blocks are guarded by striped locks, and since integers have no order
// the sum is the same bits whatever the interleaving. FloatAccumulator is the ordinary f32 sum, kept as the
// yardstick: its order shows.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/exact_sum.hpp"

namespace troupe::kernels {

// `count` zeroed elements in host memory, on huge pages where the system has them. Throws
// Error(out_of_memory).
template <typename T>
class HugeArray {
 public:
  explicit HugeArray(int64_t count);
  ~HugeArray();
  HugeArray(const HugeArray&) = delete;
  HugeArray& operator=(const HugeArray&) = delete;
  std::span<T> span() { return {data_, size_t(count_)}; }
  std::span<const T> span() const { return {data_, size_t(count_)}; }

 private:
  T* data_ = nullptr;
  int64_t count_ = 0;
};

// One lock for every kGroupBlocks blocks, reused in turn beyond kStripes groups.
class BlockLocks {
 public:
  static constexpr int64_t kGroupBlocks = 64;  // 128 KiB of an exact accumulator
  static constexpr int64_t kStripes = 1024;
  explicit BlockLocks(int64_t blocks);
  std::mutex& of_group(int64_t group) { return stripes_[size_t(group % count_)]; }

 private:
  int64_t count_;
  std::unique_ptr<std::mutex[]> stripes_;
};

template <typename T>
class Accumulator {
 public:
  // The layout is copied. Starts at zero. Throws Error(out_of_memory).
  explicit Accumulator(const BlockLayout& layout)
      : layout_(layout), values_(layout.elements()), locks_(layout.blocks()) {}

  const BlockLayout& layout() const { return layout_; }
  // All elements, in the order of the flat space. REQUIRES for reading and writing here: no sink is folding.
  std::span<T> values() { return values_.span(); }
  std::span<const T> values() const { return values_.span(); }
  // Zeroes blocks [begin, end); threads may share out the ranges. REQUIRES: no sink is folding into them.
  void clear(int64_t begin, int64_t end);
  void clear() { clear(0, layout_.blocks()); }

  BlockLocks& locks() { return locks_; }

 private:
  BlockLayout layout_;
  HugeArray<T> values_;
  BlockLocks locks_;
};
using ExactAccumulator = Accumulator<int64_t>;
using FloatAccumulator = Accumulator<float>;

// Rounds each block of a slot's gradient as exact_sum.hpp says and adds it. One sink per slot, used by one
// thread at a time. A block with NaN, infinity or a value beyond the bound is not added; it raises a flag for
// the whole slot.
class ExactSink : public GradientSink {
 public:
  // REQUIRES 2 <= bits <= 24, slots >= 1. The accumulator outlives the sink.
  ExactSink(ExactAccumulator& accumulator, const FoldOptions& options);
  // REQUIRES: gradient starts at a block and ends where a block ends. May be called more than once for a
  // block (a matrix used twice): each call rounds for itself.
  void fold(int64_t offset, ConstView gradient) override;
  uint32_t flags() const { return flags_; }  // SumFlags

 private:
  ExactAccumulator& accumulator_;
  FoldOptions options_;
  uint32_t flags_ = kSumClean;
};

// Plain f32 additions; NaN and infinity raise kSumNotFinite (and are added).
class FloatSink : public GradientSink {
 public:
  explicit FloatSink(FloatAccumulator& accumulator) : accumulator_(accumulator) {}
  void fold(int64_t offset, ConstView gradient) override;
  uint32_t flags() const { return flags_; }

 private:
  FloatAccumulator& accumulator_;
  uint32_t flags_ = kSumClean;
};

// Adds gradients into a plain flat f32 array, unrounded and without locks: for tests and for one-thread use.
class GatherSink : public GradientSink {
 public:
  explicit GatherSink(int64_t elements) : values_(size_t(elements), 0.0f) {}
  void fold(int64_t offset, ConstView gradient) override;
  const std::vector<float>& values() const { return values_; }

 private:
  std::vector<float> values_;
};

}  // namespace troupe::kernels
