// The samples of one slot as data/ hands them out and model/ consumes them: token ids, padded to a rectangle.
// Plain values, owned; immutable once shared between threads.
#pragma once

#include <cstdint>
#include <vector>

namespace troupe {

struct TokenMatrix {
  int32_t rows = 0;              // sentences, B
  int32_t cols = 0;              // padded length, T
  std::vector<int32_t> ids;      // (B, T) row-major; pad_id beyond a row's length
  std::vector<int32_t> lengths;  // (B)
};

// Encoder-decoder: source = sentence </s>, target_in = <s> sentence, target_out = sentence </s>.
// Decoder-only: source is empty, target_out is target_in shifted by one.
// target_out holds kIgnore where no loss is counted.
struct Batch {
  static constexpr int32_t kIgnore = -1;
  TokenMatrix source;
  TokenMatrix target_in;
  std::vector<int32_t> target_out;  // (B, T) of target_in
  int64_t target_tokens = 0;        // entries of target_out that are not kIgnore
  uint64_t first_pack = 0;          // which pack of the dataset this is, for messages and the ledger
  bool empty() const { return target_tokens == 0; }
};

}  // namespace troupe
