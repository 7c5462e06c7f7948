// Calls of a DeviceRuntime, kept to be made later. What they point to on the host, a kernel's arguments and
// the bytes of a copy to the device, is copied when a call is added; what is on the device is not. Sequences
// of one form differ in no more than kernels' arguments and grids and in what is copied to the device and
// where: a graph made of the one can be changed into a graph of the other. One thread at a time.
#pragma once

#include <span>
#include <variant>
#include <vector>

#include "kernels/cuda/runtime.hpp"

namespace troupe::kernels {

class CallSequence {
 public:
  struct Kernel {
    KernelCall call;  // `kernel` aside, which arguments() gives
    size_t at = 0;    // among the arguments
  };
  struct CopyIn {
    void* to = nullptr;
    size_t at = 0;  // among the inputs
    size_t bytes = 0;
    bool operator==(const CopyIn&) const = default;
  };
  struct CopyRows {
    void* to = nullptr;
    size_t to_stride = 0;
    const void* from = nullptr;
    size_t from_stride = 0, bytes = 0, rows = 0;
    bool operator==(const CopyRows&) const = default;
  };
  struct ZeroRows {
    void* to = nullptr;
    size_t stride = 0, bytes = 0, rows = 0;
    bool operator==(const ZeroRows&) const = default;
  };
  using Call = std::variant<Kernel, CopyIn, CopyRows, ZeroRows, Product, FusedAttention>;

  void add(const KernelCall& call);
  void add(void* to, std::span<const char> input);  // a copy to the device
  void add(const CopyRows& call);
  void add(const ZeroRows& call);
  void add(const Product& product);
  void add(const FusedAttention& attention);
  void clear();  // keeps its memory

  size_t size() const { return calls_.size(); }
  bool empty() const { return calls_.empty(); }
  const Call& operator[](size_t index) const { return calls_[index]; }
  // With the arguments as they were when the call was added; valid until the sequence changes.
  KernelCall kernel(const Kernel& kernel) const;
  std::span<const char> arguments(const Kernel& kernel) const;
  // The bytes of all copies to the device, each at its `at`.
  const std::vector<char>& inputs() const { return inputs_; }

  // The same for all sequences of a form, and for hardly any other.
  uint64_t form() const { return form_; }
  bool has_form_of(const CallSequence& other) const;

  void make(size_t index, DeviceRuntime& runtime) const;

 private:
  void append(const Call& call, uint64_t hash);

  std::vector<Call> calls_;
  std::vector<char> arguments_, inputs_;
  uint64_t form_ = 0;
};

}  // namespace troupe::kernels
