// Kernels of kernels/cuda/exact_sum.cpp: what kernels/exact_sum.hpp defines, with the same integers as on the
// CPU. A warp a block of at most 256 elements, four pairs of them a lane.
#pragma once

#include "kernels/cuda/device/dropout.hpp"
#include "kernels/cuda/device/math.hpp"

namespace troupe::kernels::device {

constexpr int kGrid = 40;  // units of 2^-40
constexpr int kBlockElements = 256;
constexpr uint32_t kInfinityBits = 0x7f800000u, kFlagNotFinite = 1, kFlagOverflow = 2;

// BlockLayout::Segment and its search, for the device.
struct LayoutSegment {
  int64_t offset, row, first_block, blocks_a_row;
};
struct FlatBlock {
  int64_t offset;
  int count;
};
struct LayoutTable {
  const LayoutSegment* segments = nullptr;
  int count = 0;

  TROUPE_DEVICE FlatBlock block(int64_t index) const {
    int low = 0, high = count;  // the last segment whose first block is not beyond `index`
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (segments[middle].first_block <= index ? low : high) = middle;
    }
    const LayoutSegment s = segments[low];
    const int64_t inside = index - s.first_block, in_row = inside % s.blocks_a_row * kBlockElements;
    return {s.offset + inside / s.blocks_a_row * s.row + in_row,
            int(smaller(int64_t{kBlockElements}, s.row - in_row))};
  }
};

// log2 of a block's step in units: the smallest power of two with max <= (2^(bits-1) - 1) * step, not below
// the grid. `max_bits` is the largest magnitude as the bits of a float.
TROUPE_DEVICE int step_exponent(uint32_t max_bits, int bits) {
  const int exponent = int(max_bits >> 23) - 127 + 1;  // max < 2^exponent
  const uint32_t fraction = max_bits & 0x007fffffu;
  const uint32_t room = (1u << 23) - (1u << (24 - (bits - 1)));
  const int step = exponent - (bits - 1) + (fraction > room ? 1 : 0) + kGrid;
  return step > 0 ? step : 0;
}
TROUPE_DEVICE float power_of_two(int exponent) {  // -126..127
  return std::bit_cast<float>(uint32_t(exponent + 127) << 23);
}
// Stochastic: floor(x + u), u the middle of one of 2^16 intervals.
TROUPE_DEVICE int32_t rounded(float x, bool stochastic, uint32_t word) {
  if (!stochastic) return nearest(x);
  const float u = float(word >> 16) * 0x1p-16f + 0x1p-17f;
  return nearest(floor(x + u));
}

// The warps of a block, each with one block of the flat space, and their random words.
struct WarpBlocks {
  static constexpr int kThreads = 256;
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kLane = kBlockElements / kWarp;  // elements of a lane
  struct Shared {
    uint32_t words[kWarps][words_room(kBlockElements)];
  };
  static int64_t grid(int64_t blocks) { return ceil_div(blocks, kWarps); }
};

// Two elements that are read at once: 16 bytes of sums, 8 of floats and mantissas.
template <typename T>
struct alignas(2 * sizeof(T)) Two {
  T v[2];
};

// The elements of a lane in a block of the flat space: pairs 64 elements apart, so that neighbouring lanes
// have neighbouring pairs. They lie at multiples of 16 bytes of the sums: in a block that begins between two
// such, pair p is elements 2p + 1 and 2p + 2, and the last pair is the elements 255 and 0.
struct LanePairs {
  static constexpr int kElements = WarpBlocks::kLane;
  int first, count;  // the lane's first element; the elements of the block

  static TROUPE_DEVICE LanePairs of(const int64_t* sums, int count, int thread) {
    return {thread % kWarp * 2 + int(reinterpret_cast<uintptr_t>(sums) % sizeof(Two<int64_t>) != 0), count};
  }
  // The lane's i-th, in the block; beyond its end, perhaps.
  TROUPE_DEVICE int element(int i) const {
    return (first + i / 2 * 2 * kWarp + i % 2) & (kBlockElements - 1);
  }

  // From an array that begins with the block's first element; zero beyond the block's end.
  template <typename T>
  TROUPE_DEVICE void load(const T* from, T (&to)[kElements]) const {
    const auto pair = [&](int i) {
      const Two<T> two = piece_at<Two<T>>(from + element(i));
      to[i] = two.v[0];
      to[i + 1] = two.v[1];
    };
    const auto single = [&](int i) { to[i] = element(i) < count ? from[element(i)] : T{}; };
    visit(from, pair, single);
  }
  template <typename T>
  TROUPE_DEVICE void store(T* to, const T (&from)[kElements]) const {
    const auto pair = [&](int i) { piece_at<Two<T>>(to + element(i)) = Two<T>{{from[i], from[i + 1]}}; };
    const auto single = [&](int i) {
      if (element(i) < count) to[element(i)] = from[i];
    };
    visit(to, pair, single);
  }

 private:
  TROUPE_DEVICE bool whole(int i) const { return element(i) + 1 < count; }

  // pair(i) for elements i and i + 1 where they can be read at once, single(i) for each of the others. Most
  // lanes have pairs alone, one after another without a branch.
  template <typename T, typename Pair, typename Single>
  TROUPE_DEVICE void visit(const T* array, const Pair& pair, const Single& single) const {
    const bool paired = reinterpret_cast<uintptr_t>(array + first) % sizeof(Two<T>) == 0;
    if (paired && whole(kElements - 2)) {
      TROUPE_UNROLL for (int i = 0; i < kElements; i += 2) pair(i);
      return;
    }
    TROUPE_UNROLL for (int i = 0; i < kElements; i += 2) {
      if (paired && whole(i)) {
        pair(i);
      } else {
        single(i);
        single(i + 1);
      }
    }
  }
};

// Where the blocks of a folded gradient are.
struct ContiguousBlocks {  // blocks from `first` on, the gradient starting at element `offset` of the flat
                           // space
  LayoutTable layout;
  int64_t first = 0, offset = 0;

  TROUPE_DEVICE FlatBlock block(int64_t index, int64_t& from) const {
    const FlatBlock found = layout.block(first + index);
    from = found.offset - offset;
    return found;
  }
};
struct RowBlocks {  // row r of the gradient (cols) belongs at offset + ids[r] * cols
  const int32_t* ids = nullptr;
  int64_t offset = 0, cols = 0, blocks_a_row = 1;

  TROUPE_DEVICE FlatBlock block(int64_t index, int64_t& from) const {
    const int64_t row = index / blocks_a_row, in_row = index % blocks_a_row * kBlockElements;
    from = row * cols + in_row;
    return {offset + ids[row] * cols + in_row, int(smaller(int64_t{kBlockElements}, cols - in_row))};
  }
};

// Rounds each block and adds it to `sums` (the whole flat space), or raises a flag and adds nothing.
template <typename Where>
struct FoldBlocks : WarpBlocks {
  struct Registers {
    FlatBlock block;
    LanePairs pairs;
    uint32_t max_bits;
    float x[kLane];
  };

  int64_t blocks = 0;
  Where where;
  const float* gradient = nullptr;
  int bits = 24;
  float limit = 0;
  uint64_t key = 0;
  int64_t* sums = nullptr;
  uint32_t* flags = nullptr;

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const bool stochastic = bits <= 8;
    block.each(
        [&](int thread, Registers& own) { read(block.index() * kWarps + thread / kWarp, thread, own); });
    block.warp_max([](int, Registers& own) -> uint32_t& { return own.max_bits; });
    if (stochastic)
      block.each([&](int thread, Registers& own) {
        draw_words(key, uint64_t(own.block.offset), own.block.count, thread % kWarp, kWarp,
                   block.shared().words[thread / kWarp]);
      });
    block.each([&](int thread, Registers& own) {
      if (own.max_bits == 0) return;
      const uint32_t raised = own.max_bits >= kInfinityBits                ? kFlagNotFinite
                              : std::bit_cast<float>(own.max_bits) > limit ? kFlagOverflow
                                                                           : 0;
      if (raised == 0)
        add(block.shared().words[thread / kWarp], stochastic, own);
      else if (thread % kWarp == 0)
        block.raise(flags, raised);
    });
  }

  // Loads the lane's elements; beyond the block's end they are zero, as are all in a warp without a block.
  TROUPE_DEVICE void read(int64_t index, int thread, Registers& own) const {
    int64_t from = 0;
    own.block = index < blocks ? where.block(index, from) : FlatBlock{0, 0};
    own.pairs = LanePairs::of(sums + own.block.offset, own.block.count, thread);
    own.pairs.load(gradient + from, own.x);
    own.max_bits = 0;
    TROUPE_UNROLL for (int i = 0; i < kLane; ++i) own.max_bits =
        larger(std::bit_cast<uint32_t>(own.x[i]) & 0x7fffffffu, own.max_bits);
  }

  TROUPE_DEVICE void add(const uint32_t* words, bool stochastic, const Registers& own) const {
    const int step = step_exponent(own.max_bits, bits);
    const float scale = power_of_two(kGrid - step);
    const uint64_t first = uint64_t(own.block.offset);
    int64_t* block = sums + own.block.offset;
    int64_t sum[kLane];
    own.pairs.load(block, sum);
    TROUPE_UNROLL for (int i = 0; i < kLane; ++i) {
      const int at = own.pairs.element(i);
      const bool drawn = stochastic && at < own.block.count;
      const uint32_t word = drawn ? word_of(words, first, first + uint64_t(at)) : 0;
      const int64_t mantissa = rounded(own.x[i] * scale, stochastic, word);
      sum[i] = int64_t(uint64_t(sum[i]) + (uint64_t(mantissa) << step));
    }
    own.pairs.store(block, sum);
  }
};

// The canonical rounding of integer totals, block by block: kernels/exact_sum.hpp's round_total.
struct RoundBlocks : WarpBlocks {
  struct Registers {
    FlatBlock block;
    LanePairs pairs;
    int64_t total[kLane];
    uint64_t max;
  };

  int64_t first = 0, blocks = 0;  // of the layout
  LayoutTable layout;
  const int64_t* total =
      nullptr;         // from block `first`'s first element on; the outputs are the whole flat space
  int64_t offset = 0;  // of that element
  int bits = 32;
  uint64_t key = 0;
  int32_t* mantissa = nullptr;
  uint8_t* shift = nullptr;

  static TROUPE_DEVICE int shift_of(uint64_t max, int bits) {
    const uint64_t limit = (uint64_t{1} << (bits - 1)) - 1;
    int s = 0;
    while ((max >> s) > limit || ((max >> s) == limit && (max & ((uint64_t{1} << s) - 1)) != 0)) ++s;
    return s;
  }

  template <typename Block>
  TROUPE_DEVICE void operator()(Block& block) const {
    const bool stochastic = bits <= 8;
    block.each([&](int thread, Registers& own) {
      const int64_t index = block.index() * kWarps + thread / kWarp;
      own.block = index < blocks ? layout.block(first + index) : FlatBlock{0, 0};
      const int64_t* from = total + (index < blocks ? own.block.offset - offset : 0);
      own.pairs = LanePairs::of(from, own.block.count, thread);
      own.pairs.load(from, own.total);
      own.max = 0;
      TROUPE_UNROLL for (const int64_t value : own.total) own.max =
          larger(value < 0 ? 0 - uint64_t(value) : uint64_t(value), own.max);
    });
    block.warp_max([](int, Registers& own) -> uint64_t& { return own.max; });
    if (stochastic)
      block.each([&](int thread, Registers& own) {
        draw_words(key, uint64_t(own.block.offset), own.block.count, thread % kWarp, kWarp,
                   block.shared().words[thread / kWarp]);
      });
    block.each([&](int thread, Registers& own) {
      const int64_t index = block.index() * kWarps + thread / kWarp;
      if (index >= blocks) return;
      const int down = shift_of(own.max, bits);
      const uint32_t* words = block.shared().words[thread / kWarp];
      const uint64_t key_at = uint64_t(own.block.offset);
      int32_t mantissas[kLane];
      TROUPE_UNROLL for (int i = 0; i < kLane; ++i) {
        const int at = own.pairs.element(i);
        const bool drawn = stochastic && down > 0 && at < own.block.count;
        mantissas[i] =
            round_one(own.total[i], down, drawn ? word_of(words, key_at, key_at + uint64_t(at)) : 0);
      }
      own.pairs.store(mantissa + own.block.offset, mantissas);
      if (thread % kWarp == 0) shift[first + index] = uint8_t(down);
    });
  }

  TROUPE_DEVICE int32_t round_one(int64_t value, int down, uint32_t word) const {
    if (down == 0) return int32_t(value);
    if (bits > 8) {
      const uint64_t half = (uint64_t{1} << (down - 1)) - 1;
      return int32_t(int64_t(uint64_t(value) + half + uint64_t((value >> down) & 1)) >> down);
    }
    const int right = down < 32 ? 32 - down : 0, left = down > 32 ? down - 32 : 0;
    return int32_t(int64_t(uint64_t(value) + (uint64_t(word >> right) << left)) >> down);
  }
};

}  // namespace troupe::kernels::device
