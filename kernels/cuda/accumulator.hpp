// Exact sums that stay on a device: the accumulator that slots fold into, and its rounded total, which AdamW
// reads there. The integers are those of kernels/accumulator.hpp and kernels/exact_sum.hpp for the same
// gradients. Used with one stream, in its order, by its thread.
#pragma once

#include "kernels/backend.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

// A BlockLayout with its copy on the device.
class DeviceLayout {
 public:
  DeviceLayout(CudaStream& stream, const BlockLayout& layout);
  const BlockLayout& layout() const { return layout_; }
  device::LayoutTable table() const { return table_; }

 private:
  BlockLayout layout_;
  Buffer memory_;
  device::LayoutTable table_;
};

// One 64-bit integer an element, and the flags of what was folded. Throws Error(out_of_memory).
class DeviceAccumulator {
 public:
  DeviceAccumulator(CudaStream& stream, const BlockLayout& layout);  // zeroed

  const BlockLayout& layout() const { return layout_.layout(); }
  device::LayoutTable table() const { return layout_.table(); }
  int64_t* values() const { return static_cast<int64_t*>(values_.data()); }  // device, elements()
  uint32_t* flags() const { return static_cast<uint32_t*>(flags_.data()); }  // device, one
  void clear(CudaStream& stream);
  // Waits, and returns the SumFlags of all folds since the last clear; the second forgets them.
  uint32_t read_flags(CudaStream& stream) const;
  uint32_t take_flags(CudaStream& stream);
  // Elements [begin, end) of the flat space, or all, to where `host` begins with the first of them. Wait.
  void copy_to_host(CudaStream& stream, int64_t begin, int64_t end, int64_t* host) const;
  void copy_to_host(CudaStream& stream, int64_t* host) const;
  void copy_from_host(CudaStream& stream, const int64_t* host);

 private:
  DeviceLayout layout_;
  Buffer values_, flags_;
};

// Folds a slot's gradients, on the device, in the stream's order. REQUIRES 2 <= bits <= 24, slots >= 1;
// stream and accumulator outlive it.
class DeviceSink : public GradientSink {
 public:
  DeviceSink(CudaStream& stream, DeviceAccumulator& accumulator, const FoldOptions& options);
  void fold(int64_t offset, ConstView gradient) override;
  void fold_rows(int64_t offset, std::span<const int32_t> rows, ConstView gradient) override;

 private:
  template <typename Where>
  void launch(const Where& where, int64_t blocks, ConstView gradient);

  CudaStream& stream_;
  DeviceAccumulator& accumulator_;
  FoldOptions options_;
  float limit_;
};

// RoundedTotal on a device.
class DeviceTotal {
 public:
  DeviceTotal(CudaStream& stream, const BlockLayout& layout);

  const BlockLayout& layout() const { return layout_.layout(); }
  device::LayoutTable table() const { return layout_.table(); }
  int32_t* mantissa() const { return static_cast<int32_t*>(mantissa_.data()); }  // device, elements()
  // Device, blocks(); zeros follow up to a multiple of four.
  uint8_t* shift() const { return static_cast<uint8_t*>(shift_.data()); }
  // Overwrites all blocks with the canonical rounding of the accumulator's integers.
  void round(CudaStream& stream, const DeviceAccumulator& sum, const RoundOptions& options);
  // The same of blocks [begin, end) alone; `sums` (device) holds their elements and nothing else.
  void round(CudaStream& stream, const int64_t* sums, int64_t begin, int64_t end,
             const RoundOptions& options);
  RoundedTotal to_host(CudaStream& stream) const;  // waits
  // REQUIRES that it has the layout's sizes.
  void copy_from_host(CudaStream& stream, const RoundedTotal& total);

 private:
  DeviceLayout layout_;
  Buffer mantissa_, shift_;
};

}  // namespace troupe::kernels
