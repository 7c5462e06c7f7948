// After the first steps, training takes no more memory: what a slot needs comes from its arena and the
// stream's scratch.
#include <algorithm>
#include <cstdlib>
#include <new>

#include <doctest/doctest.h>

#include "kernels/accumulator.hpp"
#include "kernels/cpu/backend.hpp"
#include "model/step.hpp"
#include "tests/model/support.hpp"

using namespace troupe;
using namespace troupe::model;
using namespace troupe::testing;

namespace {

// What this thread has asked operator new for.
struct Asked {
  size_t count = 0, largest = 0;
};
thread_local Asked asked;

void* take(size_t bytes, size_t alignment) noexcept {
  ++asked.count;
  asked.largest = std::max(asked.largest, bytes);
  const size_t whole = (std::max<size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  return std::aligned_alloc(alignment, whole);
}

void* take_or_throw(size_t bytes, size_t alignment) {
  void* data = take(bytes, alignment);
  if (data == nullptr) throw std::bad_alloc();
  return data;
}

constexpr size_t kUsual = alignof(std::max_align_t);

}  // namespace

void* operator new(size_t bytes) {
  return take_or_throw(bytes, kUsual);
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  return take_or_throw(bytes, size_t(alignment));
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  return take(bytes, kUsual);
}
void* operator new(size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return take(bytes, size_t(alignment));
}
void operator delete(void* data) noexcept {
  std::free(data);
}
void operator delete(void* data, size_t) noexcept {
  std::free(data);
}
void operator delete(void* data, std::align_val_t) noexcept {
  std::free(data);
}
void operator delete(void* data, size_t, std::align_val_t) noexcept {
  std::free(data);
}

TEST_CASE("a step takes no memory that grows with the model or the batch, once two have been made") {
  ModelConfig translator = tiny_config(), gpt = gpt2_config(2, 64, 4, 500, 64);
  translator.width = 64;
  translator.heads = 4;
  translator.inner = 256;
  translator.vocabulary = 500;
  translator.dropout = gpt.dropout = 0.1f;
  for (ModelConfig config : {translator, gpt})
    for (const kernels::DType compute : {kernels::DType::f32, kernels::DType::bf16}) {
      CAPTURE(int(config.family));
      CAPTURE(to_string(compute));
      config.compute = compute;
      const auto backend = kernels::make_cpu_backend();
      const auto stream = backend->create_stream();
      const auto model = make_model(config);
      TrainState state = initial_state(*backend, *stream, *model, 1);
      const Batch batch = random_batch(config, {8, 30, 31}, 1);
      kernels::Arena arena = arena_for(*backend, *model, batch, true);
      kernels::ExactAccumulator accumulator(model->parameters().layout());
      kernels::RoundedTotal total;
      total.resize(model->parameters().layout());
      const StepOptions options;
      const auto step = [&] {
        accumulator.clear();
        kernels::ExactSink sink(accumulator, {options.bits, 1, 1});
        const auto sums =
            model->train_slot(*stream, arena, state.view(), batch, {1, state.step, 0}, 0.1f, sink);
        kernels::round_total(model->parameters().layout(), accumulator.values(), {options.bits, 1}, 0,
                             model->parameters().layout().blocks(), total);
        commit_step(*stream, options.optimizer, *model, total, sums.tokens, sink.flags(), state);
      };
      asked = {};
      step();
      CHECK(asked.largest > 4096);  // the first does, which shows that it is counted
      step();
      asked = {};
      step();
      CHECK(asked.largest < 4096);
      MESSAGE("allocations of a step: " << asked.count << ", the largest " << asked.largest << " bytes");
    }
}
