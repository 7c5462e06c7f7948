#include "comm/ring_plan.hpp"

#include <algorithm>

#include "kernels/block_codec.hpp"

namespace troupe::comm {
namespace {

using kernels::BlockLayout;

constexpr size_t kLastBlocksBytes = 4096;  // what a chunk may have beyond its share: see elements_in_frame()

int64_t first_element(const BlockLayout& layout, int64_t block) {
  return block == layout.blocks() ? layout.elements() : layout.block(block).offset;
}

// The first block of [begin, end] that starts at or after `element`.
int64_t block_from(const BlockLayout& layout, int64_t begin, int64_t end, int64_t element) {
  while (begin < end) {
    const int64_t middle = begin + (end - begin) / 2;
    if (layout.block(middle).offset < element)
      begin = middle + 1;
    else
      end = middle;
  }
  return begin;
}

void check_cover(std::vector<Bucket> buckets, int64_t end) {
  std::sort(buckets.begin(), buckets.end(), [](const Bucket& a, const Bucket& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  int64_t at = 0;
  for (const Bucket& bucket : buckets) {
    TROUPE_CHECK(bucket.begin == at && bucket.end >= bucket.begin, "bucket [{}, {}) after {}", bucket.begin,
                 bucket.end, at);
    at = bucket.end;
  }
  TROUPE_CHECK(at == end, "buckets cover {} of {}", at, end);
}

// How many elements fit in a frame, whichever blocks they are of, and `most` at most. Blocks are packed by
// eight elements, so that those of short rows take more room for each. At the end of a long row there is one
// such block alone: it counts no more than the last block of a chunk, which is taken whole.
int64_t elements_in_frame(const BlockLayout& layout, int64_t most) {
  for (const BlockLayout::Segment& segment : layout.segments()) {
    if (segment.row >= kernels::kBlockMax) continue;
    const size_t bytes = kernels::encoded_bytes_max(layout, segment.first_block, segment.first_block + 1);
    most = std::min(most, int64_t((kFrameBytesMax - kLastBlocksBytes) / bytes) * segment.row);
  }
  return most;
}

// `cut(element)` gives the unit at which a chunk that should begin at `element` begins.
template <typename Cut>
void append_groups(RingPlan& plan, size_t bucket, int64_t elements_begin, int64_t elements,
                   int64_t chunk_elements_max, Cut cut) {
  const int64_t members = int64_t(plan.members), group_elements = members * chunk_elements_max;
  const int64_t groups = (elements + group_elements - 1) / group_elements, pieces = groups * members;
  for (int64_t piece = 0; piece < pieces; ++piece)
    plan.chunks.push_back({cut(elements_begin + elements * piece / pieces),
                           cut(elements_begin + elements * (piece + 1) / pieces)});
  plan.bucket_of_group.insert(plan.bucket_of_group.end(), size_t(groups), bucket);
  plan.groups_before.push_back(plan.groups());
}

SlotWords trimmed(SlotWords words) {
  while (!words.empty() && words.back() == 0) words.pop_back();
  return words;
}

SlotWords united(const SlotWords& a, const SlotWords& b) {
  SlotWords out = a.size() < b.size() ? b : a;
  const SlotWords& other = a.size() < b.size() ? a : b;
  for (size_t i = 0; i < other.size(); ++i) out[i] |= other[i];
  return out;
}

bool disjoint(const SlotWords& a, const SlotWords& b) {
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    if ((a[i] & b[i]) != 0) return false;
  return true;
}

}  // namespace

RingPlan plan_blocks(const BlockLayout& layout, std::span<const Bucket> buckets, size_t members,
                     size_t position, int64_t chunk_elements_max) {
  check_cover({buckets.begin(), buckets.end()}, layout.blocks());
  chunk_elements_max = elements_in_frame(layout, chunk_elements_max);
  RingPlan plan{members, position, {}, {}, {0}};
  for (size_t i = 0; i < buckets.size(); ++i) {
    const Bucket& bucket = buckets[i];
    const int64_t begin = first_element(layout, bucket.begin), end = first_element(layout, bucket.end);
    append_groups(plan, i, begin, end - begin, chunk_elements_max,
                  [&](int64_t element) { return block_from(layout, bucket.begin, bucket.end, element); });
  }
  return plan;
}

RingPlan plan_elements(int64_t elements, std::span<const Bucket> buckets, size_t members, size_t position,
                       int64_t chunk_elements_max) {
  check_cover({buckets.begin(), buckets.end()}, elements);
  RingPlan plan{members, position, {}, {}, {0}};
  for (size_t i = 0; i < buckets.size(); ++i)
    append_groups(plan, i, buckets[i].begin, buckets[i].end - buckets[i].begin, chunk_elements_max,
                  [](int64_t element) { return element; });
  return plan;
}

SlotWords RingSlots::leaving(size_t k, size_t position) const {
  return united(arriving[k], own[position]);
}

RingSlots check_contributions(std::span<const SlotWords> contributions, size_t position) {
  const size_t members = contributions.size();
  RingSlots slots;
  for (const SlotWords& words : contributions) {
    TROUPE_CHECK(words.size() <= kSlotWordsMax, "{} words of slots", words.size());
    slots.own.push_back(trimmed(words));
    if (!disjoint(slots.all, slots.own.back()))
      throw error(
          ErrorKind::protocol,
          "the contribution of the member at position {} shares a slot with one before it: sums can only be "
          "added over disjoint slots",
          slots.own.size() - 1);
    slots.all = united(slots.all, slots.own.back());
  }
  slots.arriving.resize(members);
  for (size_t k = 0; k < members; ++k)
    for (size_t member = k; member != position; member = (member + 1) % members)
      slots.arriving[k] = united(slots.arriving[k], slots.own[member]);
  return slots;
}

std::vector<Bucket> buckets_last_first(const BlockLayout& layout, int64_t elements) {
  std::vector<Bucket> buckets;
  int64_t end = layout.blocks();
  while (end > 0) {
    const int64_t begin =
        elements <= 0 ? 0
                      : std::min(block_from(layout, 0, end, first_element(layout, end) - elements), end - 1);
    buckets.push_back({begin, end});
    end = begin;
  }
  return buckets;
}

}  // namespace troupe::comm
