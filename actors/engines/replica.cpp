#include "actors/engines/replica.hpp"

#include "kernels/base/error.hpp"

namespace troupe::actors {

using model::DeviceChecksums;

namespace {

// Of several devices, which one it was.
template <typename Run>
auto naming(const std::string& device, const Run& run) {
  try {
    return run();
  } catch (const Error& failure) {
    throw error(failure.kind(), "{}: {}", device, failure.what());
  }
}

}  // namespace

Replica::Replica(ReplicaDevice device, const model::Model& model, const model::StepOptions& options,
                 const model::TrainState& from)
    : device_(std::move(device)),
      trainer_(
          naming(device_.name, [&] { return model::DeviceTrainer(*device_.work, model, options, from); })),
      checksums_(model.parameters(), trainer_.state()) {
  trainer_.clear_sum();
  checksums_.seal(*device_.work, state());
}

kernels::LossSums Replica::train(const Batch& batch, uint32_t slot, uint32_t& flags,
                                 const model::DeviceTrainer::Whole& whole) {
  return naming(name(), [&] { return trainer_.fold_slot(batch, slot, flags, whole); });
}

kernels::LossSums Replica::evaluate(const Batch& batch) {
  return naming(name(), [&] { return trainer_.evaluate_slot(batch); });
}

void Replica::load(const model::TrainState& from) {
  trainer_.load(from);
  checksums_.seal(*device_.work, state());
}

bool Replica::holds(const model::TrainState& on_host) const {
  return model::same_arrays(trainer_.copy_state(copies()), on_host);
}

std::optional<std::string> Replica::here(std::optional<std::string> what) const {
  if (what) *what += " on " + name();
  return what;
}

std::optional<std::string> Replica::check_weights() const {
  return here(
      checksums_.check(*device_.work, state(), {DeviceChecksums::kWeights, DeviceChecksums::kPacked}));
}

std::optional<std::string> Replica::check_copy(const model::TrainState& on_host) const {
  return here(checksums_.check_copy(on_host));
}

std::optional<std::string> Replica::update(const model::StepPlan& plan) {
  std::optional<std::string> changed;
  if (!plan.skipped) {
    changed =
        checksums_.check(*device_.work, state(),
                         {DeviceChecksums::kWeights, DeviceChecksums::kMoment1, DeviceChecksums::kMoment2});
    trainer_.update(plan);
    checksums_.seal(*device_.work, state());
  }
  trainer_.clear_sum();
  return here(std::move(changed));
}

std::optional<std::string> Replica::difference(const Replica& other) const {
  return here(checksums_.difference(other.checksums_));
}

int64_t* Replica::bucket(int64_t count) {
  const size_t bytes = size_t(count) * sizeof(int64_t);
  if (bucket_.bytes() < bytes) {
    bucket_ = {};  // first: never hold both
    bucket_ = naming(name(), [&] { return copies().runtime().allocate(bytes); });
  }
  return static_cast<int64_t*>(bucket_.data());
}

int64_t* Replica::copy_to_bucket(kernels::CudaStream& stream, int64_t first, int64_t count) {
  int64_t* values = bucket(count);
  const size_t bytes = size_t(count) * sizeof(int64_t);
  stream.runtime().copy_rows(values, bytes, trainer_.sum().values() + first, bytes, bytes, 1);
  return values;
}

}  // namespace troupe::actors
