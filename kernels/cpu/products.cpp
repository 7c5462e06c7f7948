#include "kernels/cpu/products.hpp"

#include <array>
#include <cstring>
#include <unordered_map>

#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/base/hash.hpp"

namespace troupe::kernels {

namespace {

#if defined(TROUPE_EMULATE_AVX512)  // oneDNN works with what there is
constexpr auto kWidest = dnnl::cpu_isa::avx2, kWide = dnnl::cpu_isa::avx;
#else
constexpr auto kWidest = dnnl::cpu_isa::avx512_core_bf16, kWide = dnnl::cpu_isa::avx2;
#endif

dnnl::cpu_isa onednn_isa(IsaLevel level) {
  switch (level) {
    case IsaLevel::v2:
      return dnnl::cpu_isa::sse41;
    case IsaLevel::v3:
      return kWide;
    case IsaLevel::v4:
      return kWidest;
  }
  return dnnl::cpu_isa::sse41;
}

dnnl::memory::data_type onednn_type(DType type) {
  TROUPE_CHECK(type == DType::f32 || type == DType::bf16, "products of {}", to_string(type));
  return type == DType::f32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

dnnl::memory::desc describe(const Factor& factor) {
  const int64_t stride = factor.matrix.stride;
  return {{factor.rows(), factor.cols()},
          onednn_type(factor.matrix.dtype),
          factor.transposed ? dnnl::memory::dims{1, stride} : dnnl::memory::dims{stride, 1}};
}

using Key = std::array<int64_t, 7>;  // M, N, K, strides of a, b and c, and the rest in bits
struct HashKey {
  size_t operator()(const Key& key) const { return checksum64(key.data(), sizeof key); }
};

Key key_of(const Factor& a, const Factor& b, bool has_bias, const View& c, bool accumulate) {
  const int64_t bits = int64_t(a.transposed) | int64_t(b.transposed) << 1 | int64_t(has_bias) << 2 |
                       int64_t(accumulate) << 3 | int64_t(a.matrix.dtype) << 8 | int64_t(c.dtype) << 16;
  return {c.rows, c.cols, a.cols(), a.matrix.stride, b.matrix.stride, c.stride, bits};
}

struct Product {
  dnnl::matmul primitive;
  dnnl::memory a, b, bias, c, scratchpad;
  size_t scratchpad_bytes = 0;
  std::array<dnnl_exec_arg_t, 5> arguments{};
};

Product make_product(const dnnl::engine& engine, const Factor& a, const Factor& b, bool has_bias,
                     const View& c, bool accumulate) {
  const dnnl::memory::desc a_desc = describe(a), b_desc = describe(b), c_desc = describe({c, false});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  const dnnl::memory::desc bias_desc({1, c.cols}, dnnl::memory::data_type::f32,
                                     dnnl::memory::dims{c.cols, 1});
  const dnnl::matmul::desc desc = has_bias ? dnnl::matmul::desc(a_desc, b_desc, bias_desc, c_desc)
                                           : dnnl::matmul::desc(a_desc, b_desc, c_desc);
  const dnnl::matmul::primitive_desc primitive_desc(desc, attributes, engine);
  Product product;
  product.primitive = dnnl::matmul(primitive_desc);
  product.a = dnnl::memory(a_desc, engine, nullptr);
  product.b = dnnl::memory(b_desc, engine, nullptr);
  product.bias = has_bias ? dnnl::memory(bias_desc, engine, nullptr) : dnnl::memory();
  product.c = dnnl::memory(c_desc, engine, nullptr);
  product.scratchpad = dnnl::memory(primitive_desc.scratchpad_desc(), engine, nullptr);
  product.scratchpad_bytes = primitive_desc.scratchpad_desc().get_size();
  product.arguments = {dnnl_exec_arg_t{DNNL_ARG_SRC, product.a.get()},
                       {DNNL_ARG_WEIGHTS, product.b.get()},
                       {DNNL_ARG_DST, product.c.get()},
                       {DNNL_ARG_SCRATCHPAD, product.scratchpad.get()},
                       {DNNL_ARG_BIAS, has_bias ? product.bias.get() : nullptr}};
  return product;
}

}  // namespace

void limit_onednn(IsaLevel level) {
  dnnl::set_max_cpu_isa(onednn_isa(level));  // fails once oneDNN has been used: the next line tells
  if (dnnl::get_effective_cpu_isa() != onednn_isa(level))
    throw error(
        ErrorKind::device,
        "cannot compute at instruction-set level {}: oneDNN already works at another level in this process; "
        "use one level a process",
        to_string(level));
}

std::string onednn_version() {
  const dnnl_version_t* version = dnnl::version();
  return fmt::format("{}.{}.{}", version->major, version->minor, version->patch);
}

struct Products::Cache {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::unordered_map<Key, Product, HashKey> products;
};

Products::Products(Scratch& scratch) : scratch_(scratch), cache_(std::make_unique<Cache>()) {}
Products::~Products() = default;

void Products::multiply(Factor a, Factor b, const float* bias, View c, bool accumulate) {
  TROUPE_CHECK(a.rows() == c.rows && b.cols() == c.cols && a.cols() == b.rows() && a.cols() > 0,
               "({}, {}) x ({}, {}) -> ({}, {})", a.rows(), a.cols(), b.rows(), b.cols(), c.rows, c.cols);
  TROUPE_CHECK(a.matrix.dtype == b.matrix.dtype);
  if (c.size() == 0) return;
  try {
    const Key key = key_of(a, b, bias != nullptr, c, accumulate);
    auto found = cache_->products.find(key);
    if (found == cache_->products.end()) {
      if (cache_->products.size() >= kPrimitivesMax) cache_->products.clear();
      found =
          cache_->products.emplace(key, make_product(cache_->engine, a, b, bias != nullptr, c, accumulate))
              .first;
    }
    Product& product = found->second;
    Scratch::Frame frame(scratch_);
    product.a.set_data_handle(const_cast<void*>(a.matrix.data));
    product.b.set_data_handle(const_cast<void*>(b.matrix.data));
    product.c.set_data_handle(c.data);
    if (bias != nullptr) product.bias.set_data_handle(const_cast<float*>(bias));
    product.scratchpad.set_data_handle(frame.take<char>(int64_t(product.scratchpad_bytes)));
    dnnl::error::wrap_c_api(dnnl_primitive_execute(product.primitive.get(), cache_->stream.get(),
                                                   bias != nullptr ? 5 : 4, product.arguments.data()),
                            "execute");
  } catch (const dnnl::error& failure) {
    throw error(ErrorKind::device, "oneDNN could not multiply ({}, {}) by ({}, {}), {} to {}: {}", a.rows(),
                a.cols(), b.rows(), b.cols(), to_string(a.matrix.dtype), to_string(c.dtype), failure.what());
  }
}

}  // namespace troupe::kernels
