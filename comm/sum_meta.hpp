// The integers of a SUM as words: how they are added and how they cross the ring.
#pragma once

#include <array>
#include <cstdint>

#include "comm/ring.hpp"

namespace troupe::comm {

using MetaWords = std::array<int64_t, 9>;

MetaWords to_words(const SumMeta& meta);
SumMeta from_words(const MetaWords& words);

}  // namespace troupe::comm
