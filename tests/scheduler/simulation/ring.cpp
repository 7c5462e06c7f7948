#include "tests/scheduler/simulation/simulation.hpp"

namespace troupe::simulation {

namespace {

size_t begin_of(uint32_t segment, size_t count) {
  return kWidth * segment / count;
}

}  // namespace

// What would leave early would wait at those who have not fed theirs, and end with the ring: as if it left
// later. But it is the end of the total of the step before.
void Simulation::perform(Node& node, scheduler::FeedReduce& feed) {
  require(feed.seal.fence.step == node.state.step, "a ring is fed before the step below is committed");
  require(feed.seal.fence.ballot == node.membership->promised(), "a ring is fed in a ballot that is over");
  node.total.reset();
}

void Simulation::perform(Node& node, scheduler::StartReduce& start) {
  const scheduler::Seal& seal = start.seal;
  node.total.reset();
  node.member->on_total_overwritten();
  require(seal.fence.step == node.state.step, "a ring begins before the step below is committed");
  require(seal.fence.ballot == node.membership->promised(),
          "a ring begins in a ballot that is not the promised one");
  Ring ring;
  ring.seal = seal;
  const scheduler::View& view = node.member->view();
  for (const auto& member : view.members) ring.order.push_back(member.rank);
  ring.position = *view.position(node.rank);
  const auto own = seal.contributions.find(node.rank);
  const SlotSet mine = own == seal.contributions.end() ? SlotSet() : own->second;
  require(mine == node.sum.slots, "a node contributes another set than it has folded");
  ring.segments.assign(ring.order.size(), node.sum);
  node.ring = std::move(ring);
  if (node.ring->order.size() == 1) return ring_finish(node);
  ring_send(node, 0, uint32_t(node.ring->position));
  std::vector<Chunk> early;
  early.swap(node.early);
  for (const Chunk& chunk : early) ring_receive(node, chunk);
}

void Simulation::ring_send(Node& node, uint32_t turn, uint32_t segment) {
  const Ring& ring = *node.ring;
  const size_t count = ring.order.size();
  Chunk chunk{ring.seal.fence, node.rank, turn, segment, ring.segments[segment].slots, {}};
  for (size_t i = begin_of(segment, count); i < begin_of(segment + 1, count); ++i)
    chunk.integers.push_back(ring.segments[segment].integers[i]);
  deliver_bulk(node.rank, ring.order[(ring.position + 1) % count],
               [this, chunk](Node& next) { ring_receive(next, chunk); });
}

void Simulation::ring_receive(Node& node, const Chunk& chunk) {
  if (!node.ring || node.ring->seal.fence != chunk.fence) {
    // Of a ring that this node will begin soon, or of one that is over.
    if (chunk.fence.ballot == node.membership->promised() && chunk.fence.step >= node.state.step &&
        node.early.size() < std::max<size_t>(64, 2 * nodes_.size()))
      node.early.push_back(chunk);
    return;
  }
  Ring& ring = *node.ring;
  const auto count = uint32_t(ring.order.size());
  require(chunk.turn == ring.turn, "a chunk of the ring came out of turn");
  Sum& here = ring.segments[chunk.segment];
  if (chunk.turn < count - 1) {
    require(here.slots.disjoint(chunk.slots), "a sum is added to one that shares a slot with it");
    here.slots = here.slots | chunk.slots;
  } else {
    here.slots = chunk.slots;
  }
  size_t at = begin_of(chunk.segment, count);
  for (int64_t value : chunk.integers)
    here.integers[at] = chunk.turn < count - 1 ? here.integers[at] + value : value, ++at;
  ++ring.turn;
  if (ring.turn < 2 * (count - 1)) return ring_send(node, ring.turn, chunk.segment);
  ring_finish(node);
}

void Simulation::ring_finish(Node& node) {
  Ring ring = std::move(*node.ring);
  node.ring.reset();
  Integers total{};
  const size_t count = ring.order.size();
  for (uint32_t segment = 0; segment < count; ++segment) {
    require(ring.segments[segment].slots == SlotSet::first(scenario_.plan.slots(ring.seal.fence.step)),
            "a total lacks slots");
    for (size_t i = begin_of(segment, count); i < begin_of(segment + 1, count); ++i)
      total[i] = ring.segments[segment].integers[i];
  }
  node.total = total;
  node.total_step = ring.seal.fence.step;
  apply(node, node.member->on_reduced(ring.seal.fence));
}

void Simulation::ring_broken(Node& node, Rank peer) {
  if (!node.ring) return;
  const auto& order = node.ring->order;
  const size_t count = order.size();
  if (order[(node.ring->position + 1) % count] != peer &&
      order[(node.ring->position + count - 1) % count] != peer)
    return;
  const Fence fence = node.ring->seal.fence;
  node.ring.reset();
  apply(node, node.member->on_reduce_failed(fence));
  apply(node, node.membership->on_broken(peer, "the ring broke", now_));
}

void Simulation::perform(Node& node, scheduler::StopReduce& stop) {
  on_node(node.rank, now_ + random_us(10, 1'000), [this, fence = stop.fence](Node& self) {
    if (!self.ring || self.ring->seal.fence != fence) return;  // it has ended by itself
    self.ring.reset();
    apply(self, self.member->on_reduce_failed(fence));
  });
}

}  // namespace troupe::simulation
