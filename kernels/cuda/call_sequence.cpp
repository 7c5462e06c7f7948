#include "kernels/cuda/call_sequence.hpp"

#include "kernels/base/random.hpp"

namespace troupe::kernels {

namespace {

uint64_t number_of(const void* address) {
  return reinterpret_cast<uintptr_t>(address);
}

// `bytes` more at the end, at a multiple of what kernels may be aligned to.
size_t append_to(std::vector<char>& all, const void* data, size_t bytes) {
  const size_t at = (all.size() + kKernelAlignment - 1) / kKernelAlignment * kKernelAlignment;
  all.resize(at + bytes);
  std::memcpy(all.data() + at, data, bytes);
  return at;
}

struct SameForm {
  bool operator()(const CallSequence::Kernel& a, const CallSequence::Kernel& b) const {
    return a.call.on_host == b.call.on_host && a.call.on_device == b.call.on_device;
  }
  bool operator()(const CallSequence::CopyIn&, const CallSequence::CopyIn&) const { return true; }
  template <typename Call>
  bool operator()(const Call& a, const Call& b) const {
    return a == b;
  }
  template <typename A, typename B>
  bool operator()(const A&, const B&) const {
    return false;
  }
};

}  // namespace

void CallSequence::append(const Call& call, uint64_t hash) {
  calls_.push_back(call);
  form_ = mix64(mix64(form_, call.index()), hash);
}

void CallSequence::add(const KernelCall& call) {
  Kernel kernel{call, append_to(arguments_, call.kernel, call.bytes)};
  kernel.call.kernel = nullptr;
  append(kernel, reinterpret_cast<uintptr_t>(call.on_host));
}

void CallSequence::add(void* to, std::span<const char> input) {
  append(CopyIn{to, append_to(inputs_, input.data(), input.size()), input.size()}, 0);
}

void CallSequence::add(const CopyRows& call) {
  append(call,
         mix64(mix64(mix64(number_of(call.to), number_of(call.from)), call.to_stride ^ call.from_stride),
               mix64(call.bytes, call.rows)));
}

void CallSequence::add(const ZeroRows& call) {
  append(call, mix64(mix64(number_of(call.to), call.stride), mix64(call.bytes, call.rows)));
}

void CallSequence::add(const Product& p) {
  const uint64_t shape = mix64(mix64(uint64_t(p.m), uint64_t(p.n)), uint64_t(p.k));
  append(p, mix64(mix64(mix64(shape, number_of(p.a.data)), number_of(p.b.data)), number_of(p.d)));
}

void CallSequence::add(const FusedAttention& a) {
  const uint64_t shape = mix64(mix64(uint64_t(a.batch), uint64_t(a.queries)), uint64_t(2 * a.keys + a.causal));
  const uint64_t read = mix64(number_of(a.q.data), number_of(a.v.data));
  append(a, mix64(mix64(shape, read), number_of(a.is_gradient ? a.dq.data : a.out.data)));
}

void CallSequence::clear() {
  calls_.clear();
  arguments_.clear();
  inputs_.clear();
  form_ = 0;
}

KernelCall CallSequence::kernel(const Kernel& kernel) const {
  KernelCall call = kernel.call;
  call.kernel = arguments_.data() + kernel.at;
  return call;
}

std::span<const char> CallSequence::arguments(const Kernel& kernel) const {
  return std::span(arguments_).subspan(kernel.at, kernel.call.bytes);
}

bool CallSequence::has_form_of(const CallSequence& other) const {
  if (form_ != other.form_ || size() != other.size()) return false;
  for (size_t i = 0; i < size(); ++i)
    if (!std::visit(SameForm{}, calls_[i], other.calls_[i])) return false;
  return true;
}

void CallSequence::make(size_t index, DeviceRuntime& runtime) const {
  const Call& call = calls_[index];
  if (const auto* launch = std::get_if<Kernel>(&call)) return runtime.launch(kernel(*launch));
  if (const auto* in = std::get_if<CopyIn>(&call))
    return runtime.copy_in(in->to, inputs_.data() + in->at, in->bytes);
  if (const auto* copy = std::get_if<CopyRows>(&call))
    return runtime.copy_rows(copy->to, copy->to_stride, copy->from, copy->from_stride, copy->bytes,
                             copy->rows);
  if (const auto* zero = std::get_if<ZeroRows>(&call))
    return runtime.zero_rows(zero->to, zero->stride, zero->bytes, zero->rows);
  if (const auto* attention = std::get_if<FusedAttention>(&call)) return runtime.attend(*attention);
  runtime.multiply(std::get<Product>(call));
}

}  // namespace troupe::kernels
