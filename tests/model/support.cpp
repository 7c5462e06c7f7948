#include "tests/model/support.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <stdlib.h>

#include "kernels/accumulator.hpp"
#include "kernels/base/random.hpp"
#include "kernels/cuda/emulated.hpp"
#include "tests/model/reference_stream.hpp"

namespace troupe::testing {

namespace {

// In the host's memory, of f32.
class HostBackend final : public kernels::Backend {
 public:
  using MakeStream = std::unique_ptr<kernels::Stream> (*)();
  HostBackend(std::string name, MakeStream make_stream) : name_(std::move(name)), make_stream_(make_stream) {}
  kernels::Device device() const override { return {}; }
  std::string description() const override { return name_; }
  kernels::Buffer allocate(size_t bytes) override {
    void* data = std::aligned_alloc(64, std::max<size_t>((bytes + 63) / 64 * 64, 64));
    return {data, bytes, {}, [](void* p, size_t, kernels::Device) { std::free(p); }};
  }
  std::unique_ptr<kernels::Stream> create_stream() override { return make_stream_(); }
  void copy_to_host(kernels::ConstView from, void* host) override {
    std::memcpy(host, from.data, size_t(from.size()) * 4);
  }
  void copy_from_host(const void* host, kernels::View to) override {
    std::memcpy(to.data, host, size_t(to.size()) * 4);
  }

 private:
  std::string name_;
  MakeStream make_stream_;
};

// `lengths` real tokens a row, then padding.
TokenMatrix random_tokens(const model::ModelConfig& config, const std::vector<int32_t>& lengths, int32_t cols,
                          const Philox& philox, uint64_t side) {
  TokenMatrix tokens{int32_t(lengths.size()), cols, {}, lengths};
  for (size_t b = 0; b < lengths.size(); ++b)
    for (int32_t t = 0; t < cols; ++t) {
      const uint32_t random = philox(b * 1000 + uint64_t(t), side)[0];
      tokens.ids.push_back(t < lengths[b] ? int32_t(4 + random % uint32_t(config.vocabulary - 4))
                                          : config.pad_id);
    }
  return tokens;
}

}  // namespace

std::unique_ptr<kernels::Backend> make_reference_backend() {
  return std::make_unique<HostBackend>("plain loops", []() -> std::unique_ptr<kernels::Stream> {
    return std::make_unique<ReferenceStream>();
  });
}

std::unique_ptr<kernels::Backend> make_emulated_backend() {
  return std::make_unique<HostBackend>("an emulated GPU", []() -> std::unique_ptr<kernels::Stream> {
    return kernels::make_emulated_stream(kernels::ThreadOrder::forward);
  });
}

model::ModelConfig tiny_config() {
  model::ModelConfig c;
  c.vocabulary = 29;
  c.width = 16;
  c.inner = 24;
  c.heads = 2;
  c.encoder_layers = 2;
  c.decoder_layers = 2;
  c.max_length = 32;
  c.dropout = 0;
  c.compute = kernels::DType::f32;
  return c;
}

Batch random_batch(const model::ModelConfig& config, const BatchShape& shape, uint64_t seed) {
  const Philox philox = philox_from(mix64(seed, 0x62617463));
  std::vector<int32_t> source, target;
  for (int32_t b = 0; b < shape.rows; ++b) {
    const auto random = philox(uint64_t(b), 7);
    source.push_back(b == 0 ? shape.source : int32_t(1 + random[0] % uint32_t(shape.source)));
    target.push_back(b == 0 ? shape.target : int32_t(1 + random[1] % uint32_t(shape.target)));
  }
  Batch batch;
  if (config.family == model::Family::encoder_decoder)
    batch.source = random_tokens(config, source, shape.source + shape.padding, philox, 1);
  const int32_t cols = shape.target + shape.padding;
  batch.target_in = random_tokens(config, target, cols, philox, 2);
  for (size_t b = 0; b < target.size(); ++b)
    for (int32_t t = 0; t < cols; ++t) {
      const uint32_t random = philox(b * 1000 + uint64_t(t), 3)[0];
      batch.target_out.push_back(t < target[b] ? int32_t(random % uint32_t(config.vocabulary))
                                               : Batch::kIgnore);
      batch.target_tokens += t < target[b] ? 1 : 0;
    }
  return batch;
}

kernels::Arena arena_for(kernels::Backend& backend, const model::Model& model, const Batch& batch,
                         bool training) {
  if (batch.empty()) return kernels::Arena(backend.allocate(64));
  const int64_t length = std::max(batch.source.cols, batch.target_in.cols);
  return kernels::Arena(
      backend.allocate(model.arena_bytes(batch.target_in.rows, batch.target_in.rows * length, training)));
}

void perturb(model::TrainState& state, uint64_t seed, float scale) {
  const Philox philox = philox_from(seed);
  for (int64_t i = 0; i < state.elements; ++i)
    state.weight_data()[i] += scale * (float(philox(uint64_t(i))[0] >> 8) * 0x1p-23f - 1);
}

Subject::Subject(std::unique_ptr<kernels::Backend> device, const model::ModelConfig& config)
    : backend(std::move(device)),
      stream(backend->create_stream()),
      model(model::make_model(config)),
      state(model::initial_state(*backend, *stream, *model, 7)) {
  perturb(state, 5, 0.05f);
  pack_state(*backend, *stream, *model, state);
}

std::vector<float> Subject::gradient(const Batch& batch, float smoothing, const model::SlotKey& key,
                                     kernels::LossSums* sums) {
  kernels::GatherSink sink(model->parameters().elements());
  kernels::Arena arena = arena_for(*backend, *model, batch, true);
  const auto result = model->train_slot(*stream, arena, state.view(), batch, key, smoothing, sink);
  if (sums != nullptr) *sums = result;
  return sink.values();
}

kernels::LossSums Subject::evaluate(const Batch& batch, float smoothing) {
  kernels::Arena arena = arena_for(*backend, *model, batch, false);
  return model->evaluate_slot(*stream, arena, state.view(), batch, smoothing);
}

double relative_distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, reference = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(double(a[i]) - double(b[i]), 2);
    reference += std::pow(double(b[i]), 2);
  }
  return std::sqrt(difference / reference);
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "troupe-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw error(ErrorKind::file, "cannot make {}", name);
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace troupe::testing
