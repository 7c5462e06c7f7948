#include "kernels/cuda/graph_runtime.hpp"

namespace troupe::kernels {

void GraphRuntime::run_gathered() {
  if (calls_.empty()) return;
  try {
    cache_.run(calls_);
  } catch (...) {
    calls_.clear();
    throw;
  }
  calls_.clear();
}

void GraphRuntime::run_at_limit() {
  if (calls_.size() >= limits_.calls_max || calls_.inputs().size() >= limits_.input_bytes_max) run_gathered();
}

void GraphRuntime::begin_gathering() {
  TROUPE_CHECK(!gathering_, "one gathering at a time");
  gathering_ = true;
}

void GraphRuntime::end_gathering() {
  gathering_ = false;
  run_gathered();
}

void GraphRuntime::drop_gathered() noexcept {
  gathering_ = false;
  calls_.clear();
}

void GraphRuntime::synchronize() {
  run_gathered();
  direct_->synchronize();
}

Buffer GraphRuntime::allocate(size_t bytes) {
  gathering_ = false;
  run_gathered();
  return direct_->allocate(bytes);
}

void GraphRuntime::copy_in(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  if (gathering_ && bytes <= limits_.input_bytes_max) {
    calls_.add(to, {static_cast<const char*>(from), bytes});
    return run_at_limit();
  }
  run_gathered();
  direct_->copy_in(to, from, bytes);
}

void GraphRuntime::copy_out(void* to, const void* from, size_t bytes) {
  run_gathered();
  direct_->copy_out(to, from, bytes);
}

void GraphRuntime::start_copy_out(const void* from, size_t bytes) {
  run_gathered();
  direct_->start_copy_out(from, bytes);
}

// What has been gathered since the copy started goes first, so that the device has work while the host waits.
void GraphRuntime::finish_copy_out(void* to) {
  run_gathered();
  direct_->finish_copy_out(to);
}

void GraphRuntime::copy_rows(void* to, size_t to_stride, const void* from, size_t from_stride, size_t bytes,
                             size_t rows) {
  if (!gathering_) return direct_->copy_rows(to, to_stride, from, from_stride, bytes, rows);
  calls_.add(CallSequence::CopyRows{to, to_stride, from, from_stride, bytes, rows});
  run_at_limit();
}

void GraphRuntime::zero_rows(void* to, size_t stride, size_t bytes, size_t rows) {
  if (!gathering_) return direct_->zero_rows(to, stride, bytes, rows);
  calls_.add(CallSequence::ZeroRows{to, stride, bytes, rows});
  run_at_limit();
}

// A graph is one launch: only between two of them has a mark a place of its own.
void GraphRuntime::set_mark(size_t mark) {
  run_gathered();
  direct_->set_mark(mark);
}

void GraphRuntime::wait_for_mark(size_t mark) {
  run_gathered();
  direct_->wait_for_mark(mark);
}

void GraphRuntime::launch(const KernelCall& call) {
  if (!gathering_) return direct_->launch(call);
  calls_.add(call);
  run_at_limit();
}

void GraphRuntime::multiply(const Product& product) {
  if (!gathering_) return direct_->multiply(product);
  calls_.add(product);
  run_at_limit();
}

void GraphRuntime::attend(const FusedAttention& attention) {
  if (!gathering_) return direct_->attend(attention);
  calls_.add(attention);
  run_at_limit();
}

}  // namespace troupe::kernels
