// What this machine can do at best, for the shapes of training: oneDNN matrix products as T one-thread
// products side by side (bf16, where it has them, and f32, forward and both backward forms; bytes into 32-bit
// integers, forward), memory read by T threads, and what one thread can hand to another. Prints one JSON
// line. Usage: bench_ceiling [threads] [seconds for each figure]
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "bench/links.hpp"
#include "bench/products.hpp"

namespace {

using namespace troupe::bench;
using dnnl::memory;

std::function<double()> products_pass(memory::data_type type) {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const auto f32 = memory::data_type::f32;
  std::vector<Product> products;
  const int64_t rows = 1024;
  const int64_t shapes[][2] = {{768, 256},  {1024, 256}, {256, 1024},
                               {1536, 512}, {2048, 512}, {512, 2048}};  // n, k
  for (const auto& [n, k] : shapes) {
    const bool bytes = type == memory::data_type::s8;
    products.emplace_back(engine, forward(rows, n, k), type, bytes ? memory::data_type::s32 : type);
    if (bytes) continue;  // for translation
    products.emplace_back(engine, backward_input(rows, n, k), type, type);
    products.emplace_back(engine, backward_weight(rows, n, k), type, f32);
  }
  return [engine, products, stream = dnnl::stream(engine)]() mutable {
    double flops = 0;
    for (Product& product : products) {
      product.run(stream);
      flops += product.flops();
    }
    stream.wait();
    return flops;
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
  const bool has_bf16 = multiplies_bf16();
  const double bf16 =
      has_bf16 ? rate(threads, seconds, [] { return products_pass(memory::data_type::bf16); }) : 0;
  const double f32 = rate(threads, seconds, [] { return products_pass(memory::data_type::f32); });
  const double bytes = rate(threads, seconds, [] { return products_pass(memory::data_type::s8); });
  const double read = rate(threads, seconds, [] { return reading_pass(); });
  std::printf("{\"threads\": %d, ", threads);
  if (has_bf16) std::printf("\"bf16_gflops\": %.1f, ", bf16 * 1e-9);
  std::printf("\"f32_gflops\": %.1f, \"int8_gops\": %.1f, \"read_gb_s\": %.1f, ", f32 * 1e-9, bytes * 1e-9,
              read * 1e-9);
  std::printf("\"socket_gb_s\": %.2f, \"shared_memory_gb_s\": %.2f}\n", socket_rate(seconds) * 1e-9,
              shared_memory_rate(seconds) * 1e-9);
  return 0;
}
