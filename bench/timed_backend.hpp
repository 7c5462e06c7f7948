// A backend that says where the time of slots goes: it hands every operation on and adds up what some of them
// take.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/backend.hpp"

namespace troupe::bench {

enum class Part : uint8_t {
  linear,      // products of linear layers, biases and their gradients
  attention,   // with its softmax
  vocabulary,  // cross-entropy with its products
  pointwise,   // norms, residuals, activations, dropout, embeddings
  folding,     // of gradients, inside of the two before; what a slot folds by itself is no operation
};
constexpr size_t kParts = 5;
using PartSeconds = std::array<double, kParts>;

// Streams are used by one thread each, as with any backend.
class TimedBackend final : public kernels::Backend {
 public:
  explicit TimedBackend(std::unique_ptr<kernels::Backend> backend) : backend_(std::move(backend)) {}

  // Of all streams since the last call. REQUIRES that no stream is in use.
  PartSeconds take();

  kernels::Device device() const override { return backend_->device(); }
  std::string description() const override { return backend_->description(); }
  kernels::Buffer allocate(size_t bytes) override { return backend_->allocate(bytes); }
  std::unique_ptr<kernels::Stream> create_stream() override;
  void copy_to_host(kernels::ConstView from, void* host) override { backend_->copy_to_host(from, host); }
  void copy_from_host(const void* host, kernels::View to) override { backend_->copy_from_host(host, to); }

 private:
  std::unique_ptr<kernels::Backend> backend_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<PartSeconds>> seconds_;  // of each stream
};

}  // namespace troupe::bench
