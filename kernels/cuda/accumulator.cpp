#include "kernels/cuda/accumulator.hpp"

#include "kernels/checks.hpp"
#include "kernels/cuda/device/exact_sum.hpp"

namespace troupe::kernels {

namespace {

constexpr int kFullTotalBits = 32;

void copy_out(CudaStream& stream, const void* from, size_t bytes, void* to) {
  if (bytes > 0) stream.runtime().copy_out(to, from, bytes);
}

}  // namespace

DeviceLayout::DeviceLayout(CudaStream& stream, const BlockLayout& layout) : layout_(layout) {
  const std::vector<device::LayoutSegment> segments = segments_of(layout);
  const size_t bytes = segments.size() * sizeof segments[0];
  memory_ = stream.runtime().allocate(bytes);
  if (bytes > 0) stream.runtime().copy_in(memory_.data(), segments.data(), bytes);
  table_ = {static_cast<const device::LayoutSegment*>(memory_.data()), int(segments.size())};
}

DeviceAccumulator::DeviceAccumulator(CudaStream& stream, const BlockLayout& layout)
    : layout_(stream, layout),
      values_(stream.runtime().allocate(size_t(layout.elements()) * sizeof(int64_t))),
      flags_(stream.runtime().allocate(sizeof(uint32_t))) {
  clear(stream);
}

void DeviceAccumulator::clear(CudaStream& stream) {
  const size_t bytes = size_t(layout().elements()) * sizeof(int64_t);
  if (bytes > 0) stream.runtime().zero_rows(values_.data(), bytes, bytes, 1);
  stream.runtime().zero_rows(flags_.data(), sizeof(uint32_t), sizeof(uint32_t), 1);
}

uint32_t DeviceAccumulator::read_flags(CudaStream& stream) const {
  uint32_t flags = 0;
  copy_out(stream, flags_.data(), sizeof flags, &flags);
  return flags;
}

uint32_t DeviceAccumulator::take_flags(CudaStream& stream) {
  const uint32_t flags = read_flags(stream);
  stream.runtime().zero_rows(flags_.data(), sizeof(uint32_t), sizeof(uint32_t), 1);
  return flags;
}

void DeviceAccumulator::copy_to_host(CudaStream& stream, int64_t begin, int64_t end, int64_t* host) const {
  TROUPE_CHECK(begin >= 0 && begin <= end && end <= layout().elements(), "elements [{}, {})", begin, end);
  copy_out(stream, values() + begin, size_t(end - begin) * sizeof(int64_t), host);
}

void DeviceAccumulator::copy_to_host(CudaStream& stream, int64_t* host) const {
  copy_to_host(stream, 0, layout().elements(), host);
}

void DeviceAccumulator::copy_from_host(CudaStream& stream, const int64_t* host) {
  const size_t bytes = size_t(layout().elements()) * sizeof(int64_t);
  if (bytes > 0) stream.runtime().copy_in(values_.data(), host, bytes);
}

DeviceSink::DeviceSink(CudaStream& stream, DeviceAccumulator& accumulator, const FoldOptions& options)
    : stream_(stream), accumulator_(accumulator), options_(options), limit_(fold_limit(options)) {}

template <typename Where>
void DeviceSink::launch(const Where& where, int64_t blocks, ConstView gradient) {
  device::FoldBlocks<Where> kernel;
  kernel.blocks = blocks;
  kernel.where = where;
  kernel.gradient = gradient.as<float>();
  kernel.bits = options_.bits;
  kernel.limit = limit_;
  kernel.key = options_.random_key;
  kernel.sums = accumulator_.values();
  kernel.flags = accumulator_.flags();
  if (blocks > 0) stream_.runtime().launch(call_of(kernel, kernel.grid(blocks), "fold"));
}

void DeviceSink::fold(int64_t offset, ConstView gradient) {
  TROUPE_CHECK(gradient.dtype == DType::f32 && gradient.contiguous(), "a folded gradient is contiguous f32");
  const BlockLayout& layout = accumulator_.layout();
  const int64_t begin = layout.block_at(offset), end = layout.block_at(offset + gradient.size());
  launch(device::ContiguousBlocks{accumulator_.table(), begin, offset}, end - begin, gradient);
}

void DeviceSink::fold_rows(int64_t offset, std::span<const int32_t> rows, ConstView gradient) {
  TROUPE_CHECK(gradient.dtype == DType::f32 && gradient.contiguous(), "a folded gradient is contiguous f32");
  TROUPE_CHECK(int64_t(rows.size()) == gradient.rows);
  const BlockLayout& layout = accumulator_.layout();
  for (const int32_t row : rows) {  // each is whole blocks of its own
    const int64_t at = offset + row * gradient.cols;
    const int64_t blocks = layout.block_at(at + gradient.cols) - layout.block_at(at);
    TROUPE_CHECK(blocks == device::ceil_div(gradient.cols, kBlockMax), "row {} of {} elements", row,
                 gradient.cols);
  }
  Scratch::Frame frame(stream_.scratch());
  auto* ids = frame.take<int32_t>(gradient.rows);
  if (gradient.rows > 0) stream_.runtime().copy_in(ids, rows.data(), rows.size_bytes());
  const int64_t blocks_a_row = device::ceil_div(gradient.cols, kBlockMax);
  launch(device::RowBlocks{ids, offset, gradient.cols, blocks_a_row}, gradient.rows * blocks_a_row, gradient);
}

DeviceTotal::DeviceTotal(CudaStream& stream, const BlockLayout& layout)
    : layout_(stream, layout),
      mantissa_(stream.runtime().allocate(size_t(layout.elements()) * sizeof(int32_t))),
      shift_(stream.runtime().allocate((size_t(layout.blocks()) + 3) / 4 * 4)) {
  if (shift_.bytes() > 0) stream.runtime().zero_rows(shift_.data(), shift_.bytes(), shift_.bytes(), 1);
}

void DeviceTotal::round(CudaStream& stream, const DeviceAccumulator& sum, const RoundOptions& options) {
  TROUPE_CHECK(sum.layout() == layout());
  round(stream, sum.values(), 0, layout().blocks(), options);
}

void DeviceTotal::round(CudaStream& stream, const int64_t* sums, int64_t begin, int64_t end,
                        const RoundOptions& options) {
  TROUPE_CHECK(options.bits >= 2 && options.bits <= kFullBits, "bits {}", options.bits);
  TROUPE_CHECK(begin >= 0 && begin <= end && end <= layout().blocks(), "blocks [{}, {})", begin, end);
  if (begin == end) return;
  device::RoundBlocks kernel;
  kernel.first = begin;
  kernel.blocks = end - begin;
  kernel.layout = table();
  kernel.total = sums;
  kernel.offset = layout().block(begin).offset;
  kernel.bits = options.bits == kFullBits ? kFullTotalBits : options.bits;
  kernel.key = options.random_key;
  kernel.mantissa = mantissa();
  kernel.shift = shift();
  stream.runtime().launch(call_of(kernel, kernel.grid(kernel.blocks), "round total"));
}

RoundedTotal DeviceTotal::to_host(CudaStream& stream) const {
  RoundedTotal total;
  total.resize(layout());
  copy_out(stream, mantissa_.data(), total.mantissa.size() * sizeof(int32_t), total.mantissa.data());
  copy_out(stream, shift_.data(), total.shift.size(), total.shift.data());
  return total;
}

void DeviceTotal::copy_from_host(CudaStream& stream, const RoundedTotal& total) {
  check_total(layout(), total);
  if (total.mantissa.empty()) return;
  stream.runtime().copy_in(mantissa_.data(), total.mantissa.data(), total.mantissa.size() * sizeof(int32_t));
  stream.runtime().copy_in(shift_.data(), total.shift.data(), total.shift.size());
}

}  // namespace troupe::kernels
