// Checksums of a state on a device from the moment it is written to the moment it is read again, as
// model/state_checksums.hpp's of one on the host: computed where the state lies, kept on the host. What has
// changed is named by its tensor. One thread at a time.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "kernels/cuda/checksum.hpp"
#include "model/parameters.hpp"
#include "model/state.hpp"

namespace troupe::model {

class DeviceChecksums {
 public:
  enum Part : size_t { kWeights, kMoment1, kMoment2, kPacked, kParts };

  // Of states of that shape. `table` must outlive this.
  DeviceChecksums(const ParameterTable& table, const TrainState& state);

  // What lies there now is right.
  void seal(kernels::CudaStream& stream, const TrainState& state);
  // What has changed since it was sealed, in words; nullopt: nothing has.
  std::optional<std::string> check(kernels::CudaStream& stream, const TrainState& state,
                                   std::initializer_list<Part> parts) const;
  // The same of a copy in the host's memory, without packed weights.
  std::optional<std::string> check_copy(const TrainState& copy) const;
  // The same of what was sealed here and there, of states of one shape on devices of one kind.
  std::optional<std::string> difference(const DeviceChecksums& other) const;

 private:
  struct Piece {
    size_t parameter = 0;
    int64_t first = 0, count = 0;  // words, from the part's beginning
  };
  std::vector<kernels::device::MemoryPiece> pieces_of(const TrainState& state, Part part) const;
  std::optional<std::string> first_difference(Part part, const std::vector<uint64_t>& sums) const;

  const ParameterTable& table_;
  std::array<std::vector<Piece>, kParts> pieces_;
  std::array<std::vector<uint64_t>, kParts> sealed_;
};

}  // namespace troupe::model
