// How a reduction is cut up: buckets into groups, a group into one chunk a member. Chunk k of a group starts
// at member k, gathers a partial sum at each hop, is whole at member k-1, and from there goes round once more
// as a total. The same at every member. Pure functions and values.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/ring.hpp"

namespace troupe::comm {

using SlotWords = std::vector<uint64_t>;

struct RingPlan {
  size_t members = 1;
  size_t position = 0;
  std::vector<Bucket> chunks;           // (groups, members), in units of the reduction: blocks or elements
  std::vector<size_t> bucket_of_group;  // ascending: groups run in the order of their buckets
  std::vector<size_t> groups_before;    // (buckets + 1): groups of the buckets in front

  size_t groups() const { return bucket_of_group.size(); }
  Bucket chunk(size_t group, size_t k) const { return chunks[group * members + k]; }
  size_t owner(size_t k) const { return (k + members - 1) % members; }
  size_t gather_end(size_t k) const {
    return (k + 2 * members - 2) % members;
  }  // who gets the total of k last
};

// Chunks of `chunk_elements_max` elements, and up to a block more; fewer where blocks are so small that as
// many would not fit in a frame. It is at most 100,000.
RingPlan plan_blocks(const kernels::BlockLayout& layout, std::span<const Bucket> buckets, size_t members,
                     size_t position, int64_t chunk_elements_max);
RingPlan plan_elements(int64_t elements, std::span<const Bucket> buckets, size_t members, size_t position,
                       int64_t chunk_elements_max);

// What the members of a reduction put in, and what a chunk must therefore carry when it comes here.
struct RingSlots {
  std::vector<SlotWords> own;       // (members), without trailing zeros
  std::vector<SlotWords> arriving;  // (members): of chunk k when it comes from the previous member
  SlotWords leaving(size_t k, size_t position) const;  // the same with our own
  SlotWords all;
};
// Throws Error(protocol) when two contributions share a slot.
RingSlots check_contributions(std::span<const SlotWords> contributions, size_t position);

}  // namespace troupe::comm
