#include "bench/products.hpp"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include <omp.h>

namespace troupe::bench {
namespace {

using Clock = std::chrono::steady_clock;
using dnnl::memory;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

memory::desc operand(int64_t batch, int64_t rows, int64_t columns, memory::data_type type, bool transposed) {
  using tag = memory::format_tag;
  if (batch == 1) return {{rows, columns}, type, transposed ? tag::ba : tag::ab};
  return {{batch, rows, columns}, type, transposed ? tag::acb : tag::abc};
}

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const ProductShape& shape,
                                      memory::data_type type, memory::data_type result_type) {
  const memory::desc left = operand(shape.batch, shape.m, shape.k, type, shape.transposed_left);
  const memory::desc right = shape.packed
                                 ? memory::desc({shape.k, shape.n}, type, memory::format_tag::any)
                                 : operand(shape.batch, shape.k, shape.n, type, shape.transposed_right);
  const memory::desc result = operand(shape.batch, shape.m, shape.n, result_type, false);
  return {dnnl::matmul::desc(left, right, result), dnnl::primitive_attr(), engine};
}

}  // namespace

double rate(int threads, double seconds, const std::function<std::function<double()>()>& make_pass) {
  std::vector<double> rates(size_t(threads), 0.0);
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      omp_set_num_threads(1);
      const auto pass = make_pass();
      pass();
      const auto begin = Clock::now();
      double units = 0;
      while (seconds_since(begin) < seconds) units += pass();
      rates[size_t(t)] = units / seconds_since(begin);
    });
  }
  for (auto& thread : running) thread.join();
  double total = 0;
  for (const double r : rates) total += r;
  return total;
}

bool multiplies_bf16() try {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  describe(engine, forward(16, 16, 16), memory::data_type::bf16, memory::data_type::bf16);
  return true;
} catch (const dnnl::error& failure) {
  if (failure.status != dnnl_unimplemented) throw;
  return false;
}

std::function<double()> reading_pass() {
  return [words = std::vector<uint64_t>(size_t{32} << 20, 1)] {
    uint64_t sum = 0;
    for (const uint64_t word : words) sum += word;
    if (sum != words.size()) std::abort();
    return double(words.size() * sizeof(uint64_t));
  };
}

std::function<double()> copying_pass() {
  return [from = std::vector<uint64_t>(size_t{16} << 20, 1),
          to = std::vector<uint64_t>(size_t{16} << 20, 0)]() mutable {
    const size_t bytes = from.size() * sizeof(uint64_t);
    std::memcpy(to.data(), from.data(), bytes);
    if (to.back() != from.back()) std::abort();
    return 2.0 * double(bytes);
  };
}

Product::Product(const dnnl::engine& engine, const ProductShape& shape, memory::data_type type,
                 memory::data_type result_type)
    : description_(describe(engine, shape, type, result_type)),
      primitive_(description_),
      left_(description_.src_desc(), engine),
      right_(description_.weights_desc(), engine),
      result_(description_.dst_desc(), engine),
      flops_(shape.flops()) {
  for (const memory* operand : {&left_, &right_}) {
    auto* words = static_cast<uint32_t*>(operand->get_data_handle());
    for (size_t i = 0; i < operand->get_desc().get_size() / 4; ++i) words[i] = 0x3f803f80u;  // ones
  }
}

void Product::run(dnnl::stream& stream) {
  primitive_.execute(stream, {{DNNL_ARG_SRC, left_}, {DNNL_ARG_WEIGHTS, right_}, {DNNL_ARG_DST, result_}});
}

}  // namespace troupe::bench
