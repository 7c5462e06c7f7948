#include "actors/roles/kept_totals.hpp"

#include <utility>

namespace troupe::actors {

void KeptTotals::keep(int64_t step, Bytes total) {
  if (step != first_ + int64_t(totals_.size())) clear();
  if (totals_.empty()) first_ = step;
  bytes_ += total->size();
  totals_.push_back(std::move(total));
  for (; bytes_ > bytes_max_ && totals_.size() > 1; ++first_) {
    bytes_ -= totals_.front()->size();
    totals_.pop_front();
  }
}

KeptTotals::Bytes KeptTotals::find(int64_t step) const {
  const int64_t index = step - first_;
  return index >= 0 && index < int64_t(totals_.size()) ? totals_[size_t(index)] : nullptr;
}

void KeptTotals::clear() {
  totals_.clear();
  bytes_ = 0;
}

}  // namespace troupe::actors
