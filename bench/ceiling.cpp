// What this machine can do at best, for the shapes of training: oneDNN matrix products as T one-thread
// products side by side (bf16 and f32, forward and both backward forms), and memory read by T threads. Prints
// one JSON line. Usage: bench_ceiling [threads] [seconds for each figure]
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include <omp.h>
#include <oneapi/dnnl/dnnl.hpp>

namespace {

using Clock = std::chrono::steady_clock;
using dnnl::memory;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Runs `pass` (which returns the units of work it did) on each thread for about `seconds`; returns units a
// second.
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

struct Product {
  dnnl::matmul primitive;
  memory left, right, result;
  double flops = 0;
};

// (m, k) x (k, n), operands given transposed where said; the right one in the layout that oneDNN likes best
// if packed.
Product make_product(const dnnl::engine& engine, memory::data_type type, memory::data_type result_type,
                     int64_t m, int64_t n, int64_t k, bool transposed_left, bool transposed_right,
                     bool packed) {
  using tag = memory::format_tag;
  const memory::desc left({m, k}, type, transposed_left ? tag::ba : tag::ab);
  const memory::desc right({k, n}, type, packed ? tag::any : transposed_right ? tag::ba : tag::ab);
  const memory::desc result({m, n}, result_type, tag::ab);
  dnnl::primitive_attr attributes;
  const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(left, right, result), attributes, engine);
  Product product{dnnl::matmul(description), memory(description.src_desc(), engine),
                  memory(description.weights_desc(), engine), memory(description.dst_desc(), engine),
                  2.0 * double(m) * double(n) * double(k)};
  for (const memory* operand : {&product.left, &product.right}) {
    auto* words = static_cast<uint32_t*>(operand->get_data_handle());
    for (size_t i = 0; i < operand->get_desc().get_size() / 4; ++i) words[i] = 0x3f803f80u;  // ones
  }
  return product;
}

std::function<double()> products_pass(memory::data_type type) {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const auto f32 = memory::data_type::f32;
  std::vector<Product> products;
  const int64_t rows = 1024;
  const int64_t shapes[][2] = {{768, 256},  {1024, 256}, {256, 1024},
                               {1536, 512}, {2048, 512}, {512, 2048}};  // n, k
  for (const auto& [n, k] : shapes) {
    products.push_back(make_product(engine, type, type, rows, n, k, false, true, true));   // y = x W^T
    products.push_back(make_product(engine, type, type, rows, k, n, false, false, true));  // dx = dy W
    products.push_back(make_product(engine, type, f32, n, k, rows, true, false, false));   // dW = dy^T x
  }
  return [engine, products, stream = dnnl::stream(engine)]() mutable {
    double flops = 0;
    for (Product& product : products) {
      product.primitive.execute(
          stream,
          {{DNNL_ARG_SRC, product.left}, {DNNL_ARG_WEIGHTS, product.right}, {DNNL_ARG_DST, product.result}});
      flops += product.flops;
    }
    stream.wait();
    return flops;
  };
}

std::function<double()> reading_pass() {
  return [words = std::vector<uint64_t>(size_t{32} << 20, 1)] {
    uint64_t sum = 0;
    for (const uint64_t word : words) sum += word;
    if (sum != words.size()) std::abort();
    return double(words.size() * sizeof(uint64_t));
  };
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : int(std::thread::hardware_concurrency());
  const double seconds = argc > 2 ? std::atof(argv[2]) : 2.0;
  if (argc > 3 || threads < 1 || seconds <= 0) {
    std::fprintf(stderr, "usage: bench_ceiling [threads] [seconds]\n");
    return 2;
  }
  const double bf16 = rate(threads, seconds, [] { return products_pass(memory::data_type::bf16); });
  const double f32 = rate(threads, seconds, [] { return products_pass(memory::data_type::f32); });
  const double read = rate(threads, seconds, [] { return reading_pass(); });
  std::printf("{\"threads\": %d, \"bf16_gflops\": %.1f, \"f32_gflops\": %.1f, \"read_gb_s\": %.1f}\n",
              threads, bf16 * 1e-9, f32 * 1e-9, read * 1e-9);
  return 0;
}
