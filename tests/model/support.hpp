// What the tests of model/ share: tiny models, random batches, a model with weights on a stream.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/base/batch.hpp"
#include "model/model.hpp"
#include "model/state.hpp"

namespace troupe::testing {

// Host memory only, and reference streams.
std::unique_ptr<kernels::Backend> make_reference_backend();
// Emulated GPU streams, whose memory is the host's.
std::unique_ptr<kernels::Backend> make_emulated_backend();

// 2+2 layers, 16 wide, 2 heads, 24 inner, vocabulary 29; f32, no dropout.
model::ModelConfig tiny_config();

struct BatchShape {
  int32_t rows = 3;
  int32_t source = 5;  // longest
  int32_t target = 4;
  int32_t padding = 0;  // more columns of it on both sides
};
// Random ids and lengths (the first row is the longest) by `seed`; the rest is what data/ would make of them.
Batch random_batch(const model::ModelConfig& config, const BatchShape& shape, uint64_t seed);

// An arena of exactly what the model asks for.
kernels::Arena arena_for(kernels::Backend& backend, const model::Model& model, const Batch& batch,
                         bool training);

// A model with weights on a backend.
struct Subject {
  std::unique_ptr<kernels::Backend> backend;
  std::unique_ptr<kernels::Stream> stream;
  std::unique_ptr<model::Model> model;
  model::TrainState state;

  Subject(std::unique_ptr<kernels::Backend> device, const model::ModelConfig& config);
  // Of the summed loss of a training slot, flat.
  std::vector<float> gradient(const Batch& batch, float smoothing, const model::SlotKey& key = {},
                              kernels::LossSums* sums = nullptr);
  kernels::LossSums evaluate(const Batch& batch, float smoothing);
};

// ||a - b|| / ||b||
double relative_distance(const std::vector<float>& a, const std::vector<float>& b);

// Moves every weight a little, so that norms and biases are not at their special initial values.
void perturb(model::TrainState& state, uint64_t seed, float scale);

// Removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace troupe::testing
