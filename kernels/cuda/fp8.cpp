// Products in fp8: weights packed in bf16 and in E4M3, as they are and transposed, since cuBLASLt multiplies
// fp8 on sm_89 and sm_90 only where both factors lie along k. Activations and gradients are encoded at each
// product.
#include "kernels/cuda/device/fp8.hpp"

#include "kernels/cuda/dispatch.hpp"
#include "kernels/cuda/stream.hpp"

namespace troupe::kernels {

namespace {

// A weight's form in fp8, behind the one in bf16.
struct Fp8Weight {
  uint8_t* codes = nullptr;       // (N, K)
  uint8_t* transposed = nullptr;  // (K, N)
  float* scale = nullptr;
};
Fp8Weight fp8_of(const PackedWeight& weight) {
  const int64_t count = weight.n * weight.k;
  auto* codes = static_cast<uint8_t*>(const_cast<void*>(weight.data)) + 2 * count;
  return {codes, codes + count, reinterpret_cast<float*>(codes + 2 * count)};
}

}  // namespace

// cuBLASLt wants rows of whole 16 bytes.
bool CudaStream::has_fp8(const PackedWeight& weight) {
  return weight.packing == Packing::fp8 && weight.n % 16 == 0 && weight.k % 16 == 0;
}

void CudaStream::require_fp8() const {
  Product probe;
  probe.m = probe.n = probe.k = 64;
  probe.a = {nullptr, 64, 64, 64, true, DType::e4m3};
  probe.b = {nullptr, 64, 64, 64, false, DType::e4m3};
  probe.leading = 64;
  probe.dtype = DType::bf16;
  if (!runtime_->has_algorithm(probe))
    throw error(
        ErrorKind::device,
        "this GPU does not multiply in fp8 (model.products = \"fp8\"): train on one of compute capability "
        "8.9 or later, or set model.products = \"compute\"");
}

// The scale's parts go to scratch memory of the frame.
template <typename T>
device::Magnitudes CudaStream::magnitudes_of(ConstView x, float* down, Scratch::Frame& frame) {
  const device::Shape shape{x.rows, x.cols};
  auto* partial = frame.take<uint32_t>(device::LargestOfBlock::kPartialsMax);
  device::Magnitudes magnitudes{partial, 0, down};
  with_width(takes_vectors(x), [&](auto width) {
    device::LargestMagnitude<T, width()> kernel;
    kernel.shape = shape;
    kernel.x = rows_of<T>(x);
    kernel.partial = partial;
    magnitudes.count = kernel.blocks(shape);
    launch(kernel, magnitudes.count, "largest magnitude");
  });
  return magnitudes;
}

void CudaStream::pack_fp8(ConstView master, const PackedWeight& weight) {
  const Fp8Weight fp8 = fp8_of(weight);
  Scratch::Frame frame(scratch_);
  device::QuantiseBothWays<device::E4M3> kernel;
  kernel.shape = {master.rows, master.cols};
  kernel.x = rows_of<float>(master);
  kernel.magnitudes = magnitudes_of<float>(master, fp8.scale, frame);
  kernel.codes = fp8.codes;
  kernel.transposed = fp8.transposed;
  launch(kernel, kernel.blocks(kernel.shape), "quantise a weight");
}

template <typename Format>
void CudaStream::quantise(ConstView x, uint8_t* codes, float* scale) {
  Scratch::Frame frame(scratch_);
  x = flattened(x, x.contiguous());
  const device::Magnitudes magnitudes = magnitudes_of<uint16_t>(x, scale, frame);
  with_width(takes_vectors(x), [&](auto width) {
    device::Quantise<uint16_t, Format, width()> kernel;
    kernel.shape = {x.rows, x.cols};
    kernel.x = rows_of<uint16_t>(x);
    kernel.magnitudes = magnitudes;
    kernel.codes = codes;
    launch(kernel, kernel.blocks(kernel.shape), "quantise");
  });
}

bool CudaStream::multiply_fp8(Product product, ConstView x, const PackedWeight& weight, bool is_gradient) {
  // cuBLASLt's bias beside an f32 result of fp8 would be bf16.
  if (product.bias != nullptr && product.dtype == DType::f32) return false;
  if (size_t(product.leading) * size_of(product.dtype) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(product.d) % 16 != 0)
    return false;
  const Fp8Weight fp8 = fp8_of(weight);
  Scratch::Frame frame(scratch_);
  auto* codes = frame.take<uint8_t>(x.size());
  auto* scale = frame.take<float>(1);
  product.a = {is_gradient ? fp8.transposed : fp8.codes,
               product.k,
               product.m,
               product.k,
               true,
               DType::e4m3,
               fp8.scale};
  product.b = {codes, product.k, product.n, product.k, false, is_gradient ? DType::e5m2 : DType::e4m3, scale};
  if (!runtime_->has_algorithm(product)) return false;
  if (is_gradient)
    quantise<device::E5M2>(x, codes, scale);
  else
    quantise<device::E4M3>(x, codes, scale);
  runtime_->multiply(product);
  return true;
}

}  // namespace troupe::kernels
