// The totals R of consecutive steps, kept for those who follow: with the state before the first of them, they
// give every later state. The oldest go when there are too many bytes. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

namespace troupe::actors {

class KeptTotals {
 public:
  using Bytes = std::shared_ptr<const std::vector<std::byte>>;

  explicit KeptTotals(size_t bytes_max) : bytes_max_(bytes_max) {}

  // A step other than the next begins anew: the state has come from elsewhere meanwhile.
  void keep(int64_t step, Bytes total);
  Bytes find(int64_t step) const;  // null: not here
  bool empty() const { return totals_.empty(); }
  int64_t first() const { return first_; }  // REQUIRES !empty()
  void clear();

 private:
  size_t bytes_max_;
  size_t bytes_ = 0;
  int64_t first_ = 0;
  std::deque<Bytes> totals_;  // of first_, first_ + 1, ...
};

}  // namespace troupe::actors
