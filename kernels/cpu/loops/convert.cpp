#include "kernels/cpu/loops/convert.hpp"

#include "kernels/cpu/loops/vec.hpp"

namespace troupe::kernels::TROUPE_ISA {

namespace {

template <typename From, typename To>
void copy(const From* from, To* to, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, load(from + i));
  if (i < count) store(to + i, load(from + i, count - i), count - i);
}

void add(const float* x, float* y, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(y + i, load(y + i) + load(x + i));
  for (; i < count; ++i) y[i] += x[i];
}

}  // namespace

extern const ConvertLoops convert_loops = {copy<float, uint16_t>, copy<uint16_t, float>, add};

}  // namespace troupe::kernels::TROUPE_ISA
