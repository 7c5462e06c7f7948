// A model as `troupe export` writes it for use: weights packed for products, and in f32 those alone that are
// read as such (embeddings, biases, norms). It is mapped, not read: its pages come from the file, and
// processes share them.
//
// Sections as of model/section_file.hpp: the record of a checkpoint, the type of the packed weights, vectors
// and embeddings (f32, each at a multiple of 64 bytes, in the table's order; an output projection that is no
// embedding is not among them), and the packed weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "model/checkpoint.hpp"

namespace troupe::inference {

// Immutable; any thread.
struct ExportedModel {
  model::CheckpointInfo info;
  int64_t step = 0;
  kernels::DType type = kernels::DType::f32;  // of the packed weights
  kernels::Buffer file;                       // mapped, read-only
  std::vector<const float*> masters;          // as WeightsView::apart
  std::vector<kernels::PackedWeight> packed;

  model::WeightsView weights() const { return {nullptr, &packed, nullptr, &masters}; }
};

// Whether the file begins as one.
bool is_exported(const std::filesystem::path& path);

// Maps the file and verifies the checksum of each section, and by its length that it ends where it should;
// the digest of the whole is left alone. Errors: file, corrupt, version.
ExportedModel open_exported(const std::filesystem::path& path, const kernels::Stream& stream);

// Packs the weights of a checkpoint as `type` (the model's compute type, or i8) and replaces `path`, at once
// or not at all. Returns its bytes. Errors: file.
uint64_t export_model(const std::filesystem::path& path, const model::SavedWeights& saved,
                      kernels::DType type, kernels::Backend& backend);

}  // namespace troupe::inference
