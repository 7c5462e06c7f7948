// How the 64-bit sums of a node's devices become one, bucket by bucket: in a group of these devices where
// there is one, by the host where not; or with the devices of all members of a view in their group. Each
// device's own sum stays as it is. One thread at a time.
#pragma once

#include "actors/engines/replica.hpp"
#include "comm/device_group.hpp"
#include "comm/ring.hpp"

namespace troupe::actors {

// Which slots of which step are in a sum, as numbers that are added with it, modulo 2^64: those of all
// members together must come to `whole`.
struct SlotTally {
  uint64_t own = 0;
  uint64_t whole = 0;
};

class DeviceSums {
 public:
  // `inside` is a group of these devices alone, or null. The replicas outlive this.
  DeviceSums(const Replicas& replicas, std::unique_ptr<comm::DeviceGroup> inside,
             const kernels::BlockLayout& layout);

  // Elements [first, first + count) of the node's sum, to the host. By way of the copies' streams.
  void fetch(int64_t first, int64_t count, int64_t* host);
  // Every device's total becomes the rounded one of the node's sum. By way of the work's streams.
  void round(const kernels::RoundOptions& options);

  // The same with all devices of a group that has been joined, by way of the copies' streams: first each of
  // buckets(), in their order and when its blocks are final; then the integers beside the gradient, after
  // which every device has the total. `own` is the node's. Throw like DeviceGroup; finish_in() also
  // Error(protocol), when what has been summed up is not what the tally says.
  std::span<const comm::Bucket> buckets() const { return buckets_; }
  void add_in(comm::DeviceGroup& group, size_t bucket, const kernels::RoundOptions& options,
              comm::Deadline deadline);
  comm::SumMeta finish_in(comm::DeviceGroup& group, const comm::SumMeta& own, const SlotTally& tally,
                          comm::Deadline deadline);

 private:
  using StreamOf = kernels::CudaStream& (*)(Replica&);
  void reserve();
  void warm_up(const kernels::RoundOptions& options);
  void round_bucket(StreamOf stream_of, const comm::Bucket& bucket, const kernels::RoundOptions& options);
  std::vector<comm::Addend> copy_to_buckets(StreamOf stream_of, int64_t first, int64_t count);
  bool add_inside(StreamOf stream_of, int64_t first, int64_t count);
  void add_on_host(StreamOf stream_of, int64_t first, int64_t count, int64_t* host);

  const Replicas& replicas_;
  std::unique_ptr<comm::DeviceGroup> inside_;  // until it fails
  bool inside_joined_ = false;
  bool warm_ = false;
  const kernels::BlockLayout& layout_;
  std::vector<comm::Bucket> buckets_;
  int64_t largest_ = 0;  // integers of a bucket
  std::vector<int64_t> host_, of_one_;
};

}  // namespace troupe::actors
