#include "kernels/cpu/loops/inference.hpp"

#include "kernels/cpu/loops/vec_math.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

struct Best {
  float* values;
  int32_t* ids;
  int64_t capacity;
  int64_t count;
};

void insert(Best& best, float value, int32_t id) {
  int64_t at = best.count < best.capacity ? best.count++ : best.capacity - 1;
  for (; at > 0 && best.values[at - 1] < value; --at) {
    best.values[at] = best.values[at - 1];
    best.ids[at] = best.ids[at - 1];
  }
  best.values[at] = value;
  best.ids[at] = id;
}

void find_largest(const float* logits, int64_t count, Best& best) {
  int64_t i = 0;
  for (; i < best.capacity; ++i)
    insert(best, logits[i] == logits[i] ? logits[i] : -__builtin_inff(), int32_t(i));
  const float* least = best.values + best.capacity - 1;
  for (; i + kLanes <= count; i += kLanes) {
    if (!any(less(broadcast(*least), load(logits + i)))) continue;
    for (int64_t j = i; j < i + kLanes; ++j)
      if (logits[j] > *least) insert(best, logits[j], int32_t(j));
  }
  for (; i < count; ++i)
    if (logits[i] > *least) insert(best, logits[i], int32_t(i));
}

void log_softmax_topk(const float* logits, int64_t count, int64_t k, float* values, int32_t* ids) {
  Best best{values, ids, k, 0};
  find_largest(logits, count, best);
  const Vec shift = broadcast(values[0]);
  Vec sum = zero();
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) sum = sum + exp(load(logits + i) - shift);
  float rest[kLanes];
  for (int64_t j = 0; j < kLanes; ++j) rest[j] = i + j < count ? logits[i + j] : -__builtin_inff();
  if (i < count) sum = sum + exp(load(static_cast<const float*>(rest)) - shift);
  const Vec total = broadcast(sum_lanes(sum));
  const Vec log_sum = shift + log(total) + (total - total);
  for (int64_t j = 0; j < k; j += kLanes) {
    const int64_t n = k - j < kLanes ? k - j : kLanes;
    store(values + j, load(static_cast<const float*>(values + j), n) - log_sum, n);
  }
}

}  // namespace

extern const InferenceLoops inference_loops = {log_softmax_topk};

}  // namespace troupe::kernels::TROUPE_ISA
