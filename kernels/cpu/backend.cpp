#include "kernels/cpu/backend.hpp"

#include <cstring>

#include "kernels/cpu/products.hpp"
#include "kernels/cpu/stream.hpp"

namespace troupe::kernels {

namespace {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(IsaLevel level) : level_(level) {}

  Device device() const override { return {}; }
  std::string description() const override {
    return fmt::format("CPU, x86-64-{}{}, oneDNN {}", to_string(level_),
                       level_ == IsaLevel::v4 ? " bf16" : "", onednn_version());
  }
  Buffer allocate(size_t bytes) override { return allocate_host(bytes); }
  std::unique_ptr<Stream> create_stream() override { return std::make_unique<CpuStream>(level_); }

  void copy_to_host(ConstView from, void* host) override {
    const size_t row_bytes = size_t(from.cols) * size_of(from.dtype);
    for (int64_t row = 0; row < from.rows; ++row)
      std::memcpy(static_cast<char*>(host) + size_t(row) * row_bytes, from.row_range(row, 1).data, row_bytes);
  }
  void copy_from_host(const void* host, View to) override {
    const size_t row_bytes = size_t(to.cols) * size_of(to.dtype);
    for (int64_t row = 0; row < to.rows; ++row)
      std::memcpy(to.row_range(row, 1).data, static_cast<const char*>(host) + size_t(row) * row_bytes,
                  row_bytes);
  }

 private:
  IsaLevel level_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(IsaLevel level) {
  if (level > best_isa_level())
    throw error(ErrorKind::device, "this machine lacks instruction-set level {}: the highest it has is {}",
                to_string(level), to_string(best_isa_level()));
  limit_onednn(level);
  return std::make_unique<CpuBackend>(level);
}

}  // namespace troupe::kernels
