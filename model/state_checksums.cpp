#include "model/state_checksums.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "kernels/base/hash.hpp"
#include "model/optimizer.hpp"

namespace troupe::model {

namespace {

uint64_t hash_of(const float* data, int64_t offset, int64_t count) {
  return checksum64(data + offset, size_t(count) * sizeof(float));
}

uint64_t hash_of_packed(const kernels::Stream& stream, const Parameter& parameter,
                        const kernels::PackedWeight& packed) {
  return checksum64(packed.data,
                    stream.packed_bytes(parameter.rows, parameter.cols, {packed.dtype, packed.packing}));
}

}  // namespace

StateChecksums::StateChecksums(const ParameterTable& table) : table_(table), packed_(table.all().size()) {
  const kernels::BlockLayout& layout = table.layout();
  const auto& segments = layout.segments();
  size_t parameter = 0;
  for (int64_t range = 0; range < commit_ranges(layout); ++range) {
    first_piece_.push_back(pieces_.size());
    const int64_t begin = range * kRangeBlocks, end = std::min(begin + kRangeBlocks, layout.blocks());
    int64_t offset = layout.block(begin).offset;
    const int64_t stop = offset + layout.elements_in(begin, end);
    while (offset < stop) {
      while (segments[parameter].offset + segments[parameter].count <= offset) ++parameter;
      const int64_t next = std::min(stop, segments[parameter].offset + segments[parameter].count);
      pieces_.push_back({offset, next - offset, parameter});
      offset = next;
    }
  }
  first_piece_.push_back(pieces_.size());
}

void StateChecksums::seal_range(int64_t range, const StateArrays& state) {
  for (size_t i = first_piece_[size_t(range)]; i < first_piece_[size_t(range) + 1]; ++i) {
    Piece& piece = pieces_[i];
    piece.weights = hash_of(state.weights, piece.offset, piece.count);
    piece.moment1 = hash_of(state.moment1, piece.offset, piece.count);
    piece.moment2 = hash_of(state.moment2, piece.offset, piece.count);
  }
}

void StateChecksums::seal_packed(const kernels::Stream& stream, size_t parameter, const TrainState& state) {
  const Parameter& p = table_.all()[parameter];
  if (p.packed) packed_[parameter] = hash_of_packed(stream, p, state.packed.views[parameter]);
}

void StateChecksums::seal(const kernels::Stream& stream, const TrainState& state) {
  for (int64_t range = 0; range < ranges(); ++range) seal_range(range, state.arrays());
  for (size_t i = 0; i < table_.all().size(); ++i) seal_packed(stream, i, state);
}

std::optional<std::string> StateChecksums::check_weights(int64_t range, const StateArrays& state) const {
  for (size_t i = first_piece_[size_t(range)]; i < first_piece_[size_t(range) + 1]; ++i) {
    const Piece& piece = pieces_[i];
    if (piece.weights != hash_of(state.weights, piece.offset, piece.count))
      return fmt::format("a weight of {}", table_.all()[piece.parameter].name);
  }
  return std::nullopt;
}

std::optional<std::string> StateChecksums::check_moments(int64_t range, const StateArrays& state) const {
  for (size_t i = first_piece_[size_t(range)]; i < first_piece_[size_t(range) + 1]; ++i) {
    const Piece& piece = pieces_[i];
    if (piece.moment1 != hash_of(state.moment1, piece.offset, piece.count))
      return fmt::format("a first moment of {}", table_.all()[piece.parameter].name);
    if (piece.moment2 != hash_of(state.moment2, piece.offset, piece.count))
      return fmt::format("a second moment of {}", table_.all()[piece.parameter].name);
  }
  return std::nullopt;
}

std::optional<std::string> StateChecksums::check_packed(const kernels::Stream& stream, size_t parameter,
                                                        const TrainState& state) const {
  const Parameter& p = table_.all()[parameter];
  if (!p.packed || packed_[parameter] == hash_of_packed(stream, p, state.packed.views[parameter]))
    return std::nullopt;
  return fmt::format("a packed weight of {}", p.name);
}

}  // namespace troupe::model
