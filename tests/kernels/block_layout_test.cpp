#include <doctest/doctest.h>

#include "kernels/exact_sum.hpp"

using namespace troupe;
using namespace troupe::kernels;

namespace {

BlockLayout mixed_layout() {
  BlockLayout layout;
  layout.append(1000, 1000);    // 3 full blocks and one of 232
  layout.append(0, 7);          // nothing
  layout.append(5 * 300, 300);  // an embedding: 256 + 44 a row
  layout.append(1, 1);
  layout.append(4 * 64, 64);
  return layout;
}

}  // namespace

TEST_CASE("blocks follow one another, hold at most 256 elements and never cross a row") {
  const BlockLayout layout = mixed_layout();
  CHECK(layout.elements() == 1000 + 1500 + 1 + 256);
  CHECK(layout.blocks() == 4 + 10 + 1 + 4);
  int64_t next = 0, visited = 0;
  layout.for_each(0, layout.blocks(), [&](int64_t index, BlockLayout::Block block) {
    CHECK(index == visited++);
    CHECK(block.offset == next);
    CHECK(block.count >= 1);
    CHECK(block.count <= kBlockMax);
    if (block.offset >= 1000 && block.offset < 2500)
      CHECK((block.offset - 1000) / 300 == (block.offset + block.count - 1 - 1000) / 300);
    const BlockLayout::Block found = layout.block(index);
    CHECK(found.offset == block.offset);
    CHECK(found.count == block.count);
    CHECK(layout.block_at(block.offset) == index);
    next += block.count;
  });
  CHECK(next == layout.elements());
  CHECK(visited == layout.blocks());
  CHECK(layout.block_at(layout.elements()) == layout.blocks());
}

TEST_CASE("ranges of blocks know their elements, in every pair of ends") {
  const BlockLayout layout = mixed_layout();
  for (int64_t begin = 0; begin <= layout.blocks(); ++begin)
    for (int64_t end = begin; end <= layout.blocks(); ++end) {
      int64_t count = 0;
      layout.for_each(begin, end, [&](int64_t index, BlockLayout::Block block) {
        CHECK(block.offset == layout.block(index).offset);
        CHECK(block.count == layout.block(index).count);
        count += block.count;
      });
      CHECK(layout.elements_in(begin, end) == count);
    }
}

TEST_CASE("an element inside a block, a block beyond the end and a crooked segment are refused") {
  BlockLayout layout = mixed_layout();
  CHECK_THROWS_AS((void)layout.block_at(1), CheckFailure);
  CHECK_THROWS_AS((void)layout.block_at(1000 + 300 + 44), CheckFailure);
  CHECK_THROWS_AS((void)layout.block_at(layout.elements() + 1), CheckFailure);
  CHECK_THROWS_AS((void)layout.block(layout.blocks()), CheckFailure);
  CHECK_THROWS_AS((void)layout.elements_in(3, 2), CheckFailure);
  CHECK_THROWS_AS((void)layout.append(10, 3), CheckFailure);
  CHECK(BlockLayout().elements_in(0, 0) == 0);
  CHECK(mixed_layout() == layout);
  layout.append(1, 1);
  CHECK_FALSE(mixed_layout() == layout);
}
