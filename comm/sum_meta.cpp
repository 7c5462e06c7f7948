#include "comm/sum_meta.hpp"

namespace troupe::comm {

namespace {

int64_t wrapping_add(int64_t a, int64_t b) {
  return int64_t(uint64_t(a) + uint64_t(b));
}

}  // namespace

MetaWords to_words(const SumMeta& meta) {
  return {meta.target_tokens, meta.correct, meta.loss,    meta.nll,           meta.samples,
          meta.more[0],       meta.more[1], meta.more[2], int64_t(meta.flags)};
}

SumMeta from_words(const MetaWords& words) {
  return {words[0],          words[1], words[2], words[3], words[4], {words[5], words[6], words[7]},
          uint32_t(words[8])};
}

SumMeta& SumMeta::operator+=(const SumMeta& other) {
  MetaWords sum = to_words(*this);
  const MetaWords added = to_words(other);
  for (size_t i = 0; i + 1 < sum.size(); ++i) sum[i] = wrapping_add(sum[i], added[i]);
  sum.back() |= added.back();
  return *this = from_words(sum);
}

}  // namespace troupe::comm
