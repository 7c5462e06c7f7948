#include "model/device_checksums.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace troupe::model {

using kernels::device::MemoryPiece;

namespace {

constexpr int64_t kPieceWords = 65536;
constexpr std::array<const char*, DeviceChecksums::kParts> kNames = {"a weight", "a first moment",
                                                                     "a second moment", "a packed weight"};

const void* base_of(const TrainState& state, DeviceChecksums::Part part) {
  const void* const bases[] = {state.weights.data(), state.moment1.data(), state.moment2.data(),
                               state.packed.memory.data()};
  return bases[part];
}

}  // namespace

DeviceChecksums::DeviceChecksums(const ParameterTable& table, const TrainState& state) : table_(table) {
  const auto cut = [](std::vector<Piece>& pieces, size_t parameter, int64_t first, int64_t count) {
    for (int64_t at = 0; at < count; at += kPieceWords)
      pieces.push_back({parameter, first + at, std::min(kPieceWords, count - at)});
  };
  for (size_t i = 0; i < table.all().size(); ++i) {
    const Parameter& p = table.all()[i];
    for (const Part part : {kWeights, kMoment1, kMoment2}) cut(pieces_[part], i, p.offset, p.rows * p.cols);
    if (!p.packed) continue;
    const kernels::PackedWeight& packed = state.packed.views[i];
    const auto bytes =
        static_cast<const char*>(packed.data) - static_cast<const char*>(state.packed.memory.data());
    const auto size = int64_t(kernels::CudaStream::packed_size(packed));
    cut(pieces_[kPacked], i, bytes / 4, (size + 3) / 4);  // there is room up to 256 bytes
  }
}

std::vector<MemoryPiece> DeviceChecksums::pieces_of(const TrainState& state, Part part) const {
  const auto* words = static_cast<const uint32_t*>(base_of(state, part));
  std::vector<MemoryPiece> pieces;
  for (const Piece& piece : pieces_[part]) pieces.push_back({words + piece.first, piece.count});
  return pieces;
}

void DeviceChecksums::seal(kernels::CudaStream& stream, const TrainState& state) {
  for (const Part part : {kWeights, kMoment1, kMoment2, kPacked})
    sealed_[part] = checksums(stream, pieces_of(state, part));
}

std::optional<std::string> DeviceChecksums::first_difference(Part part,
                                                             const std::vector<uint64_t>& sums) const {
  const auto differs = std::mismatch(sums.begin(), sums.end(), sealed_[part].begin()).first;
  if (differs == sums.end()) return std::nullopt;
  const Piece& piece = pieces_[part][size_t(differs - sums.begin())];
  return fmt::format("{} of {}", kNames[part], table_.all()[piece.parameter].name);
}

std::optional<std::string> DeviceChecksums::check(kernels::CudaStream& stream, const TrainState& state,
                                                  std::initializer_list<Part> parts) const {
  for (const Part part : parts)
    if (auto found = first_difference(part, checksums(stream, pieces_of(state, part)))) return found;
  return std::nullopt;
}

std::optional<std::string> DeviceChecksums::check_copy(const TrainState& copy) const {
  for (const Part part : {kWeights, kMoment1, kMoment2}) {
    std::vector<uint64_t> sums;
    for (const MemoryPiece& piece : pieces_of(copy, part)) sums.push_back(kernels::checksum_on_host(piece));
    if (auto found = first_difference(part, sums)) return found;
  }
  return std::nullopt;
}

std::optional<std::string> DeviceChecksums::difference(const DeviceChecksums& other) const {
  for (const Part part : {kWeights, kMoment1, kMoment2, kPacked})
    if (auto found = first_difference(part, other.sealed_[part])) return found;
  return std::nullopt;
}

}  // namespace troupe::model
