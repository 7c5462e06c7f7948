// Checksums of a state from the moment it is written to the moment it is read again: whoever trains finds out
// when a weight, a packed weight or a moment has changed in memory by itself, before anything is computed
// from it. XXH3 over pieces that belong to one range of a commit (model/optimizer.hpp) and to one parameter,
// so that a mismatch names the tensor. Ranges and parameters may be sealed and checked from several threads
// at once, each from one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/parameters.hpp"
#include "model/state.hpp"

namespace troupe::model {

class StateChecksums {
 public:
  // `table` must outlive this.
  explicit StateChecksums(const ParameterTable& table);

  int64_t ranges() const { return int64_t(first_piece_.size()) - 1; }

  // What lies there now is right.
  void seal_range(int64_t range, const StateArrays& state);
  void seal_packed(const kernels::Stream& stream, size_t parameter, const TrainState& state);
  void seal(const kernels::Stream& stream, const TrainState& state);  // all of it

  // What has changed since it was sealed, in words; nullopt: nothing has.
  std::optional<std::string> check_weights(int64_t range, const StateArrays& state) const;
  std::optional<std::string> check_moments(int64_t range, const StateArrays& state) const;
  std::optional<std::string> check_packed(const kernels::Stream& stream, size_t parameter,
                                          const TrainState& state) const;

 private:
  struct Piece {
    int64_t offset = 0, count = 0;  // elements
    size_t parameter = 0;
    uint64_t weights = 0, moment1 = 0, moment2 = 0;
  };

  const ParameterTable& table_;
  std::vector<Piece> pieces_;
  std::vector<size_t> first_piece_;  // of each range, and the end
  std::vector<uint64_t> packed_;     // a parameter
};

}  // namespace troupe::model
