#include "kernels/cuda/products.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <type_traits>
#include <unordered_map>

#include <cublasLt.h>

#include "kernels/base/hash.hpp"
#include "kernels/cuda/check.hpp"
#include "kernels/cuda/cuda_runtime.hpp"

namespace troupe::kernels {

namespace {

[[noreturn]] void fail(cublasStatus_t status, const std::string& tried) {
  const bool lacks_memory = status == CUBLAS_STATUS_ALLOC_FAILED;
  throw error(lacks_memory ? ErrorKind::out_of_memory : ErrorKind::device, "{}: {}{}", tried,
              cublasLtGetStatusString(status), lacks_memory ? kLessMemoryAdvice : "");
}

void check_cublas(cublasStatus_t status, const char* call, const Product& p) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail(status, fmt::format("cannot multiply ({}, {}) by ({}, {}), {} to {}: {}", p.m, p.k, p.k, p.n,
                           to_string(p.a.dtype), to_string(p.dtype), call));
}

cudaDataType_t cuda_type(DType type) {
  switch (type) {
    case DType::f32:
      return CUDA_R_32F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::e4m3:
      return CUDA_R_8F_E4M3;
    case DType::e5m2:
      return CUDA_R_8F_E5M2;
    default:
      throw error(ErrorKind::device, "there are no products of {}", to_string(type));
  }
}

// What cuBLASLt may rely on: the largest power of two that divides the address, at most the 64 that every
// piece of an arena and of scratch memory has: where in them a matrix lies must not choose its algorithm.
uint32_t alignment_of(const void* data) {
  const auto address = uint32_t(reinterpret_cast<uintptr_t>(data) % 64) | 64u;
  return address & (0u - address);
}

// An address of which cuBLASLt can tell no more than that.
template <typename T>
T* of_same_alignment(T* data) {
  return data == nullptr ? nullptr : reinterpret_cast<T*>(uintptr_t{alignment_of(data)});
}

template <typename Handle, cublasStatus_t (*Destroy)(Handle)>
struct Destroyer {
  void operator()(Handle handle) const {
    if (Destroy(handle) != CUBLAS_STATUS_SUCCESS) std::fputs("cuBLASLt could not destroy a handle\n", stderr);
  }
};
template <typename Handle, cublasStatus_t (*Destroy)(Handle)>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroyer<Handle, Destroy>>;
using OwnedDesc = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using OwnedLayout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using OwnedPreference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

// m, n, k, leading dimensions, and the rest in bits.
using Key = std::array<int64_t, 8>;
struct HashKey {
  size_t operator()(const Key& key) const { return checksum64(key.data(), sizeof key); }
};

Key key_of(const Product& p) {
  const auto log2 = [](const void* data) { return int64_t(std::countr_zero(alignment_of(data))); };
  const int64_t bits = int64_t(p.a.transposed) | int64_t(p.b.transposed) << 1 |
                       int64_t(p.bias != nullptr) << 2 | int64_t(p.accumulate) << 3 |
                       int64_t(p.epilogue) << 4 | int64_t(p.column_sums != nullptr) << 6 |
                       int64_t(p.tf32) << 7 | int64_t(p.a.dtype) << 8 | int64_t(p.b.dtype) << 12 |
                       int64_t(p.dtype) << 16 | log2(p.a.data) << 24 | log2(p.b.data) << 28 |
                       log2(p.d) << 32 | log2(p.bias) << 36 | log2(p.pre) << 40 | log2(p.column_sums) << 44;
  return {p.m, p.n, p.k, p.a.leading, p.b.leading, p.leading, p.pre_leading, bits};
}

OwnedLayout layout_of(const Product& p, DType type, int64_t rows, int64_t cols, int64_t leading) {
  cublasLtMatrixLayout_t layout = nullptr;
  check_cublas(cublasLtMatrixLayoutCreate(&layout, cuda_type(type), uint64_t(rows), uint64_t(cols),
                                          std::max(leading, rows)),
               "cublasLtMatrixLayoutCreate", p);
  return OwnedLayout(layout);
}

template <typename Value>
void set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const Value& value,
         const Product& p) {
  check_cublas(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value),
               "cublasLtMatmulDescSetAttribute", p);
}
template <typename Value>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
         const Value& value, const Product& p) {
  check_cublas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
               "cublasLtMatmulPreferenceSetAttribute", p);
}

cublasLtEpilogue_t epilogue_of(const Product& p) {
  const bool has_bias = p.bias != nullptr;
  switch (p.epilogue) {
    case Epilogue::gelu:
      return has_bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
    case Epilogue::gelu_gradient:
      return CUBLASLT_EPILOGUE_DGELU;
    case Epilogue::none:
      break;
  }
  if (p.column_sums != nullptr) return CUBLASLT_EPILOGUE_BGRADB;
  return has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

// The addresses beside those of the factors and the result.
void point(cublasLtMatmulDesc_t desc, const Product& p) {
  if (p.bias != nullptr) set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias, p);
  if (p.column_sums != nullptr) set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.column_sums, p);
  if (p.epilogue != Epilogue::none) set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.pre, p);
  if (p.is_fp8()) {
    set(desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, p.a.scale, p);
    set(desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, p.b.scale, p);
  }
}

OwnedDesc describe(const Product& p) {
  cublasLtMatmulDesc_t made = nullptr;
  const auto compute = p.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  check_cublas(cublasLtMatmulDescCreate(&made, compute, CUDA_R_32F), "cublasLtMatmulDescCreate", p);
  OwnedDesc desc(made);
  const cublasOperation_t a = p.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t b = p.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  set(desc.get(), CUBLASLT_MATMUL_DESC_TRANSA, a, p);
  set(desc.get(), CUBLASLT_MATMUL_DESC_TRANSB, b, p);
  set(desc.get(), CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(p), p);
  if (p.epilogue != Epilogue::none) set(desc.get(), CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.pre_leading, p);
  point(desc.get(), p);
  return desc;
}

OwnedPreference prefer(const Product& p) {
  cublasLtMatmulPreference_t made = nullptr;
  check_cublas(cublasLtMatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate", p);
  OwnedPreference preference(made);
  set(made, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{CudaProducts::kWorkspaceBytes}, p);
  set(made, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE}, p);
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p.a.data), p);
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p.b.data), p);
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(p.d), p);
  set(made, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(p.d), p);
  return preference;
}

}  // namespace

std::string cublas_version() {
  const size_t v = cublasLtGetVersion();  // 130002 is 13.0.2
  return fmt::format("{}.{}.{}", v / 10000, v / 100 % 100, v % 100);
}

struct CudaProducts::Plan {
  OwnedDesc desc;
  OwnedLayout a, b, d;
  cublasLtMatmulAlgo_t algorithm{};
  bool possible = false;  // whether there is an algorithm
};

struct CudaProducts::Cache {
  cublasLtHandle_t handle = nullptr;
  std::unordered_map<Key, Plan, HashKey> plans;
};

CudaProducts::CudaProducts(cudaStream_t stream, void* workspace)
    : stream_(stream), workspace_(workspace), cache_(std::make_unique<Cache>()) {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cannot ask for the current GPU");
  capability_ = cuda_capability(device);
  const cublasStatus_t status = cublasLtCreate(&cache_->handle);
  if (status != CUBLAS_STATUS_SUCCESS) fail(status, "cannot start cuBLASLt");
}

CudaProducts::~CudaProducts() {
  cache_->plans.clear();
  if (cublasLtDestroy(cache_->handle) != CUBLAS_STATUS_SUCCESS)
    std::fputs("cuBLASLt could not end\n", stderr);
}

CudaProducts::Plan& CudaProducts::plan_of(const Product& p) {
  const Key key = key_of(p);
  const auto found = cache_->plans.find(key);
  if (found != cache_->plans.end()) return found->second;
  if (cache_->plans.size() >= kPlansMax) cache_->plans.clear();
  // The choice of an algorithm looks at these addresses' alignment, and reads nothing there.
  Product placed = p;
  placed.bias = of_same_alignment(p.bias);
  placed.column_sums = of_same_alignment(p.column_sums);
  placed.pre = of_same_alignment(p.pre);
  Plan plan{describe(placed),
            layout_of(p, p.a.dtype, p.a.rows, p.a.cols, p.a.leading),
            layout_of(p, p.b.dtype, p.b.rows, p.b.cols, p.b.leading),
            layout_of(p, p.dtype, p.m, p.n, p.leading),
            {},
            false};
  const OwnedPreference preference = prefer(p);
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(cache_->handle, plan.desc.get(), plan.a.get(), plan.b.get(),
                                     plan.d.get(), plan.d.get(), preference.get(), 1, &result, &count);
  // What a library does not know at all it may call invalid: only where the product can be had otherwise is
  // that an answer.
  const bool refused = status == CUBLAS_STATUS_NOT_SUPPORTED ||
                       ((p.is_fused() || p.is_fp8()) &&
                        (status == CUBLAS_STATUS_INVALID_VALUE || status == CUBLAS_STATUS_ARCH_MISMATCH));
  if (!refused) check_cublas(status, "cublasLtMatmulAlgoGetHeuristic", p);
  plan.possible = status == CUBLAS_STATUS_SUCCESS && count > 0 && result.state == CUBLAS_STATUS_SUCCESS;
  plan.algorithm = result.algo;
  return cache_->plans.emplace(key, std::move(plan)).first->second;
}

bool CudaProducts::has_algorithm(const Product& p) {
  if (p.is_fp8() && capability_ < 89) return false;
  if (p.epilogue != Epilogue::none) {
    if (capability_ < 90 || p.dtype != DType::bf16) return false;
    // What cuBLASLt asks of the values beside the result: not all of it before the product is made.
    if (p.pre_leading % 8 != 0 || p.pre_leading < p.m || alignment_of(p.pre) < 16 || alignment_of(p.d) < 16)
      return false;
  }
  return plan_of(p).possible;
}

bool CudaProducts::multiply(const Product& p) {
  Plan& plan = plan_of(p);
  if (!plan.possible) return false;
  point(plan.desc.get(), p);
  const float alpha = 1, beta = p.accumulate ? 1 : 0;
  check_cublas(cublasLtMatmul(cache_->handle, plan.desc.get(), &alpha, p.a.data, plan.a.get(), p.b.data,
                              plan.b.get(), &beta, p.d, plan.d.get(), p.d, plan.d.get(), &plan.algorithm,
                              workspace_, kWorkspaceBytes, stream_),
               "cublasLtMatmul", p);
  return true;
}

}  // namespace troupe::kernels
