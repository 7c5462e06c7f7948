#include "actors/engines/device_sums.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include <spdlog/spdlog.h>

#include "kernels/base/error.hpp"

namespace troupe::actors {

namespace {

constexpr int64_t kBucketElements = int64_t{1} << 21;
constexpr int64_t kIntegers = 11;  // of a SUM, beside its gradient
constexpr int kInsidePatienceMs = 60'000;

kernels::CudaStream& work_of(Replica& replica) {
  return replica.work();
}
kernels::CudaStream& copies_of(Replica& replica) {
  return replica.copies();
}

std::array<int64_t, kIntegers> integers_of(const comm::SumMeta& sum, uint64_t tally) {
  const auto raised = [&](uint32_t flag) { return int64_t((sum.flags & flag) != 0 ? 1 : 0); };
  return {int64_t(tally),
          sum.target_tokens,
          sum.correct,
          sum.loss,
          sum.nll,
          sum.samples,
          sum.more[0],
          sum.more[1],
          sum.more[2],
          raised(kernels::kSumNotFinite),
          raised(kernels::kSumOverflow)};
}

// Flags are counted.
comm::SumMeta meta_of(const std::array<int64_t, kIntegers>& integers) {
  comm::SumMeta sum{integers[1],       integers[2], integers[3],
                    integers[4],       integers[5], {integers[6], integers[7], integers[8]},
                    kernels::kSumClean};
  if (integers[9] != 0) sum.flags |= kernels::kSumNotFinite;
  if (integers[10] != 0) sum.flags |= kernels::kSumOverflow;
  return sum;
}

}  // namespace

DeviceSums::DeviceSums(const Replicas& replicas, std::unique_ptr<comm::DeviceGroup> inside,
                       const kernels::BlockLayout& layout)
    : replicas_(replicas),
      inside_(std::move(inside)),
      layout_(layout),
      buckets_(comm::buckets_last_first(layout, kBucketElements)) {
  largest_ = kIntegers;
  for (const comm::Bucket& b : buckets_) largest_ = std::max(largest_, layout.elements_in(b.begin, b.end));
}

// Before a group has work under way: memory is not given back and taken then, which would wait for it.
void DeviceSums::reserve() {
  for (const auto& replica : replicas_) replica->bucket(largest_);
}

// Before the first group has work under way: the first copies and the first rounding of a process take memory
// and load a kernel, which waits for all of a device's work, and nobody could give the group up meanwhile.
// The total's first block is rounded again later.
void DeviceSums::warm_up(const kernels::RoundOptions& options) {
  if (std::exchange(warm_, true) || layout_.blocks() == 0) return;
  host_.assign(size_t(layout_.elements_in(0, 1)), 0);
  for (const auto& replica : replicas_)
    replica->copies().runtime().copy_in(replica->bucket(int64_t(host_.size())), host_.data(),
                                        host_.size() * sizeof(int64_t));
  round_bucket(copies_of, {0, 1}, options);
  for (const auto& replica : replicas_) replica->copies().synchronize();
}

std::vector<comm::Addend> DeviceSums::copy_to_buckets(StreamOf stream_of, int64_t first, int64_t count) {
  std::vector<comm::Addend> addends;
  for (const auto& replica : replicas_) {
    kernels::CudaStream& stream = stream_of(*replica);
    addends.push_back({&stream.runtime(), replica->copy_to_bucket(stream, first, count)});
  }
  return addends;
}

// Into each device's bucket. False when there is no such group, or no longer: each sum is still what it was.
bool DeviceSums::add_inside(StreamOf stream_of, int64_t first, int64_t count) {
  if (inside_ == nullptr) return false;
  try {
    const comm::Deadline deadline = comm::deadline_in_ms(kInsidePatienceMs);
    if (!inside_joined_)
      inside_->join({inside_->new_id(), 0, replicas_.size()},
                    std::make_shared<const std::atomic<bool>>(false), deadline);
    inside_joined_ = true;
    const std::vector<comm::Addend> addends = copy_to_buckets(stream_of, first, count);
    inside_->add(addends, count, deadline);
    inside_->wait(addends, deadline);
    return true;
  } catch (const Error& failure) {
    spdlog::warn("the group of this node's devices has failed: {}; from now on the host adds their sums",
                 failure.what());
    inside_.reset();
    return false;
  }
}

void DeviceSums::add_on_host(StreamOf stream_of, int64_t first, int64_t count, int64_t* host) {
  of_one_.resize(size_t(replicas_.size() > 1 ? count : 0));
  for (const auto& replica : replicas_) {
    int64_t* to = replica == replicas_.front() ? host : of_one_.data();
    replica->trainer().sum().copy_to_host(stream_of(*replica), first, first + count, to);
    if (to == host) continue;
    for (int64_t i = 0; i < count; ++i) host[i] += to[i];
  }
}

void DeviceSums::fetch(int64_t first, int64_t count, int64_t* host) {
  if (!add_inside(copies_of, first, count)) return add_on_host(copies_of, first, count, host);
  Replica& any = *replicas_.front();
  any.copies().runtime().copy_out(host, any.bucket(count), size_t(count) * sizeof(int64_t));
}

void DeviceSums::round_bucket(StreamOf stream_of, const comm::Bucket& bucket,
                              const kernels::RoundOptions& options) {
  const int64_t count = layout_.elements_in(bucket.begin, bucket.end);
  for (const auto& replica : replicas_)
    replica->trainer().total().round(stream_of(*replica), replica->bucket(count), bucket.begin, bucket.end,
                                     options);
}

void DeviceSums::round(const kernels::RoundOptions& options) {
  reserve();
  for (const comm::Bucket& bucket : buckets_) {
    if (bucket.begin == bucket.end) continue;
    const int64_t first = layout_.block(bucket.begin).offset,
                  count = layout_.elements_in(bucket.begin, bucket.end);
    if (!add_inside(work_of, first, count)) {
      host_.resize(size_t(count));
      add_on_host(work_of, first, count, host_.data());
      for (const auto& replica : replicas_)
        replica->work().runtime().copy_in(replica->bucket(count), host_.data(),
                                          host_.size() * sizeof(int64_t));
    }
    round_bucket(work_of, bucket, options);
  }
  for (const auto& replica : replicas_) replica->work().synchronize();
}

void DeviceSums::add_in(comm::DeviceGroup& group, size_t index, const kernels::RoundOptions& options,
                        comm::Deadline deadline) {
  if (index == 0) {
    if (inside_ != nullptr) inside_->leave();  // not needed beside the other: it gives its memory back
    inside_joined_ = false;
    reserve();
    warm_up(options);
  }
  const comm::Bucket& bucket = buckets_.at(index);
  if (bucket.begin == bucket.end) return;
  const int64_t count = layout_.elements_in(bucket.begin, bucket.end);
  group.add(copy_to_buckets(copies_of, layout_.block(bucket.begin).offset, count), count, deadline);
  round_bucket(copies_of, bucket, options);
}

// The first device brings what is the node's, the others nothing.
comm::SumMeta DeviceSums::finish_in(comm::DeviceGroup& group, const comm::SumMeta& own,
                                    const SlotTally& tally, comm::Deadline deadline) {
  std::array<int64_t, kIntegers> integers = integers_of(own, tally.own);
  std::vector<comm::Addend> addends;
  for (const auto& replica : replicas_) {
    comm::Addend& added = addends.emplace_back();
    added = {&replica->copies().runtime(), replica->bucket(kIntegers)};
    added.runtime->copy_in(added.values, integers.data(), sizeof integers);
    integers.fill(0);
  }
  group.add(addends, kIntegers, deadline);
  group.wait(addends, deadline);
  addends.front().runtime->copy_out(integers.data(), addends.front().values, sizeof integers);
  if (uint64_t(integers[0]) != tally.whole)
    throw error(ErrorKind::protocol,
                "members of a group have come to it with different steps, or not with each slot once");
  return meta_of(integers);
}

}  // namespace troupe::actors
