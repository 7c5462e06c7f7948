#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

device::DropoutRule rule_of(const Dropout& dropout) {
  TROUPE_CHECK(dropout.rate >= 0 && dropout.rate < 1, "dropout rate {}", dropout.rate);
  if (dropout.rate == 0) return {};
  return {dropout.key, uint32_t(double(dropout.rate) * 4294967296.0), 1.0f / (1.0f - dropout.rate)};
}

std::vector<device::LayoutSegment> segments_of(const BlockLayout& layout) {
  std::vector<device::LayoutSegment> segments;
  for (const BlockLayout::Segment& s : layout.segments())
    segments.push_back({s.offset, s.row, s.first_block, s.blocks_a_row()});
  return segments;
}

CudaStream::CudaStream(std::unique_ptr<DeviceRuntime> runtime, const CudaLimits& limits)
    : runtime_(std::move(runtime)),
      limits_(limits),
      scratch_([device = runtime_.get()](size_t bytes) { return device->allocate(bytes); }) {}

device::LayoutTable CudaStream::place(const BlockLayout& layout, Scratch::Frame& frame) {
  const std::vector<device::LayoutSegment> segments = segments_of(layout);
  return {place(std::span<const device::LayoutSegment>(segments), frame), int(segments.size())};
}

}  // namespace troupe::kernels
