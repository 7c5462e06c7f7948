#include "kernels/cuda/cudnn.hpp"

#include <array>
#include <cstdio>

#include "kernels/cuda/check.hpp"

namespace troupe::kernels {

std::string cudnn_version() {
  const size_t v = cudnnGetVersion();  // 91900 is 9.19.0
  return fmt::format("{}.{}.{}", v / 10000, v / 100 % 100, v % 100);
}

void check_cudnn(cudnnStatus_t status, const std::string& tried) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  std::array<char, 1024> reason{};
  cudnnGetLastErrorString(reason.data(), reason.size());
  const bool lacks_memory = status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
                            status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED;
  throw error(lacks_memory ? ErrorKind::out_of_memory : ErrorKind::device, "{}: {}: {}{}", tried,
              cudnnGetErrorString(status), reason.data(), lacks_memory ? kLessMemoryAdvice : "");
}

bool is_unsupported(cudnnStatus_t status) {
  switch (status) {
    case CUDNN_STATUS_NOT_SUPPORTED:
    case CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN:
    case CUDNN_STATUS_NOT_SUPPORTED_SHAPE:
    case CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE:
    case CUDNN_STATUS_NOT_SUPPORTED_LAYOUT:
    case CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH:
    case CUDNN_STATUS_NOT_SUPPORTED_SHARED_MEMORY_INSUFFICIENT:
    case CUDNN_STATUS_NOT_SUPPORTED_PADDING:
      return true;
    default:
      return false;
  }
}

namespace cudnn {

Descriptor::Descriptor(cudnnBackendDescriptorType_t type, const char* name) : name_(name) {
  cudnnBackendDescriptor_t made = nullptr;
  check_cudnn(cudnnBackendCreateDescriptor(type, &made), fmt::format("cannot make cuDNN's {}", name));
  owned_.reset(made);
}

void Descriptor::Destroyer::operator()(cudnnBackendDescriptor_t descriptor) const {
  if (cudnnBackendDestroyDescriptor(descriptor) != CUDNN_STATUS_SUCCESS)
    std::fputs("cuDNN could not destroy a descriptor\n", stderr);
}

int64_t Descriptor::read(cudnnBackendAttributeName_t attribute,
                         std::span<cudnnBackendDescriptor_t> places) const {
  const auto most = int64_t(places.size());
  int64_t count = 0;
  check(
      cudnnBackendGetAttribute(get(), attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, most, &count, places.data()),
      attribute);
  return std::min(count, most);
}

void Descriptor::finalize() {
  check_cudnn(cudnnBackendFinalize(get()), fmt::format("cannot finalise cuDNN's {}", name_));
}

bool Descriptor::finalize_if_supported() {
  const cudnnStatus_t status = cudnnBackendFinalize(get());
  if (is_unsupported(status)) return false;
  check_cudnn(status, fmt::format("cannot finalise cuDNN's {}", name_));
  return true;
}

void Descriptor::check(cudnnStatus_t status, cudnnBackendAttributeName_t attribute) const {
  if (status != CUDNN_STATUS_SUCCESS)
    check_cudnn(status, fmt::format("attribute {} of cuDNN's {}", int(attribute), name_));
}

}  // namespace cudnn

}  // namespace troupe::kernels
