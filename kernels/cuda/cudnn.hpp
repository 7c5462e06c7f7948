// cuDNN's graph interface: descriptors that are set attribute by attribute, finalised, and never change
// again. Only files of fused attention include this. Descriptors may be used by one thread at a time.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <cudnn.h>

#include "kernels/base/error.hpp"

namespace troupe::kernels {

std::string cudnn_version();  // "9.19.0"

// Throws Error(device), Error(out_of_memory) that says what was tried, and what cuDNN answered.
void check_cudnn(cudnnStatus_t status, const std::string& tried);

// Whether cuDNN has no such thing, in which case there may be another. What the machine lacks is an error: it
// must not choose the engine.
bool is_unsupported(cudnnStatus_t status);

namespace cudnn {

template <typename T>
inline constexpr auto kTypeOf = [] {
  if constexpr (std::is_same_v<T, int64_t>)
    return CUDNN_TYPE_INT64;
  else if constexpr (std::is_same_v<T, bool>)
    return CUDNN_TYPE_BOOLEAN;
  else if constexpr (std::is_same_v<T, char>)
    return CUDNN_TYPE_CHAR;
  else if constexpr (std::is_same_v<T, cudnnHandle_t>)
    return CUDNN_TYPE_HANDLE;
  else if constexpr (std::is_same_v<T, cudnnDataType_t>)
    return CUDNN_TYPE_DATA_TYPE;
  else if constexpr (std::is_same_v<T, cudnnPointwiseMode_t>)
    return CUDNN_TYPE_POINTWISE_MODE;
  else if constexpr (std::is_same_v<T, cudnnReduceTensorOp_t>)
    return CUDNN_TYPE_REDUCTION_OPERATOR_TYPE;
  else if constexpr (std::is_same_v<T, cudnnBackendHeurMode_t>)
    return CUDNN_TYPE_HEUR_MODE;
  else if constexpr (std::is_same_v<T, cudnnBackendNumericalNote_t>)
    return CUDNN_TYPE_NUMERICAL_NOTE;
  else if constexpr (std::is_same_v<T, cudnnBackendKnobType_t>)
    return CUDNN_TYPE_KNOB_TYPE;
  else {
    static_assert(std::is_same_v<T, cudnnBackendDescriptor_t>);  // which is void*: see set_addresses
    return CUDNN_TYPE_BACKEND_DESCRIPTOR;
  }
}();

class Descriptor {
 public:
  // `name` is a literal, for messages.
  Descriptor(cudnnBackendDescriptorType_t type, const char* name);

  cudnnBackendDescriptor_t get() const { return owned_.get(); }

  template <typename T>
  void set(cudnnBackendAttributeName_t attribute, std::span<const T> values) {
    check(cudnnBackendSetAttribute(get(), attribute, kTypeOf<T>, int64_t(values.size()), values.data()),
          attribute);
  }
  template <typename T>
  void set(cudnnBackendAttributeName_t attribute, const T& value) {
    set(attribute, std::span<const T>(&value, 1));
  }
  void set_addresses(cudnnBackendAttributeName_t attribute, std::span<void* const> values) {
    check(cudnnBackendSetAttribute(get(), attribute, CUDNN_TYPE_VOID_PTR, int64_t(values.size()),
                                   values.data()),
          attribute);
  }
  template <typename T>
  std::vector<T> values(cudnnBackendAttributeName_t attribute, int64_t most) const {
    std::vector<T> all(static_cast<size_t>(most));
    int64_t count = 0;
    check(cudnnBackendGetAttribute(get(), attribute, kTypeOf<T>, most, &count, all.data()), attribute);
    all.resize(size_t(std::min(count, most)));
    return all;
  }
  // Copies the descriptors of the attribute into those at `places`; how many there were.
  int64_t read(cudnnBackendAttributeName_t attribute, std::span<cudnnBackendDescriptor_t> places) const;

  void finalize();
  bool finalize_if_supported();  // false: cuDNN has no such thing

 private:
  struct Destroyer {
    void operator()(cudnnBackendDescriptor_t descriptor) const;
  };
  void check(cudnnStatus_t status, cudnnBackendAttributeName_t attribute) const;

  const char* name_;
  std::unique_ptr<std::remove_pointer_t<cudnnBackendDescriptor_t>, Destroyer> owned_;
};

}  // namespace cudnn

}  // namespace troupe::kernels
