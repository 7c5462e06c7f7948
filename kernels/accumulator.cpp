#include "kernels/accumulator.hpp"

#include <algorithm>
#include <cstring>

#include <sys/mman.h>

#include "kernels/cpu/loops/exact_sum.hpp"
#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

// The blocks that a folded gradient covers.
struct BlockRange {
  int64_t begin;
  int64_t end;
};

BlockRange covered(const BlockLayout& layout, int64_t offset, ConstView gradient) {
  TROUPE_CHECK(gradient.dtype == DType::f32 && gradient.contiguous(), "a folded gradient is contiguous f32");
  return {layout.block_at(offset), layout.block_at(offset + gradient.size())};
}

// Calls fold_group(begin, end) with the group's lock held for each part of `range` that lies in one group.
// Groups that another thread is folding into are put off and come last.
template <typename FoldGroup>
void for_each_group(BlockLocks& locks, BlockRange range, FoldGroup&& fold_group) {
  constexpr int64_t kGroup = BlockLocks::kGroupBlocks;
  if (range.begin == range.end) return;
  std::vector<int64_t> put_off;
  const auto fold = [&](int64_t group) {
    fold_group(std::max(range.begin, group * kGroup), std::min(range.end, (group + 1) * kGroup));
  };
  for (int64_t group = range.begin / kGroup; group <= (range.end - 1) / kGroup; ++group) {
    const std::unique_lock lock(locks.of_group(group), std::try_to_lock);
    if (lock.owns_lock())
      fold(group);
    else
      put_off.push_back(group);
  }
  for (int64_t group : put_off) {
    const std::lock_guard lock(locks.of_group(group));
    fold(group);
  }
}

FoldRule rule_of(const FoldOptions& options) {
  return {options.bits, fold_limit(options), options.random_key};
}

}  // namespace

template <typename T>
HugeArray<T>::HugeArray(int64_t count) : count_(count) {
  TROUPE_CHECK(count >= 0);
  if (count == 0) return;
  const size_t bytes = size_t(count) * sizeof(T);
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED)
    throw error(ErrorKind::out_of_memory,
                "cannot allocate {} bytes for the sum of gradients: {}; use a smaller model", bytes,
                std::strerror(errno));
  madvise(data, bytes, MADV_HUGEPAGE);  // a wish: without it all works, more slowly
  data_ = static_cast<T*>(data);
}

template <typename T>
HugeArray<T>::~HugeArray() {
  if (data_ != nullptr) munmap(data_, size_t(count_) * sizeof(T));
}

template class HugeArray<int64_t>;
template class HugeArray<float>;

BlockLocks::BlockLocks(int64_t blocks)
    : count_(std::clamp((blocks + kGroupBlocks - 1) / kGroupBlocks, int64_t{1}, kStripes)),
      stripes_(std::make_unique<std::mutex[]>(size_t(count_))) {}

template <typename T>
void Accumulator<T>::clear(int64_t begin, int64_t end) {
  const int64_t count = layout_.elements_in(begin, end);
  if (count == 0) return;
  std::memset(values().data() + layout_.block(begin).offset, 0, size_t(count) * sizeof(T));
}

template class Accumulator<int64_t>;
template class Accumulator<float>;

ExactSink::ExactSink(ExactAccumulator& accumulator, const FoldOptions& options)
    : accumulator_(accumulator), options_(options) {
  rule_of(options);  // checks them
}

void ExactSink::fold(int64_t offset, ConstView gradient) {
  const BlockLayout& layout = accumulator_.layout();
  const FoldRule rule = rule_of(options_);
  const ExactSumLoops& loops = *loops_of(best_isa_level()).exact_sum;
  const float* values = gradient.as<float>();
  int64_t* sums = accumulator_.values().data();
  for_each_group(accumulator_.locks(), covered(layout, offset, gradient), [&](int64_t begin, int64_t end) {
    layout.for_each(begin, end, [&](int64_t, BlockLayout::Block block) {
      flags_ |= loops.fold(values + (block.offset - offset), block.count, uint64_t(block.offset), &rule,
                           sums + block.offset);
    });
  });
}

void FloatSink::fold(int64_t offset, ConstView gradient) {
  const BlockLayout& layout = accumulator_.layout();
  const ExactSumLoops& loops = *loops_of(best_isa_level()).exact_sum;
  const float* values = gradient.as<float>();
  float* sums = accumulator_.values().data();
  for_each_group(accumulator_.locks(), covered(layout, offset, gradient), [&](int64_t begin, int64_t end) {
    layout.for_each(begin, end, [&](int64_t, BlockLayout::Block block) {
      flags_ |= loops.fold_float(values + (block.offset - offset), block.count, sums + block.offset);
    });
  });
}

void GatherSink::fold(int64_t offset, ConstView gradient) {
  TROUPE_CHECK(gradient.contiguous() && gradient.dtype == DType::f32);
  TROUPE_CHECK(offset >= 0 && offset + gradient.size() <= int64_t(values_.size()));
  const float* from = gradient.as<float>();
  for (int64_t i = 0; i < gradient.size(); ++i) values_[size_t(offset + i)] += from[i];
}

}  // namespace troupe::kernels
