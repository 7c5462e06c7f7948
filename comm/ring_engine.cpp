#include "comm/ring_engine.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "comm/sum_meta.hpp"

namespace troupe::comm {
namespace {

constexpr int64_t kAbortMs = 200;

constexpr uint8_t kSawPartial = 1, kSawTotal = 2;

constexpr size_t kGroupsNear = 2, kGroupsFar = 6;

bool on_one_machine(std::span<const BulkPeer> members) {
  return std::all_of(members.begin(), members.end(), [&](const BulkPeer& member) {
    return !member.host_id.empty() && member.host_id == members.front().host_id;
  });
}

}  // namespace

RingEngine::RingEngine(std::vector<BulkPeer> members, size_t position, RingLinks links, RingOptions options)
    : members_(std::move(members)),
      position_(position),
      groups_in_flight_(options.groups_in_flight > 0 ? size_t(options.groups_in_flight)
                        : on_one_machine(members_)   ? kGroupsNear
                                                     : kGroupsFar),
      links_(std::move(links)) {
  TROUPE_CHECK(position_ < members_.size(), "position {} of {}", position_, members_.size());
  TROUPE_CHECK(size() == 1 || (links_.next && links_.previous), "a ring of {} needs links", size());
  TROUPE_CHECK(options.chunk_elements_max >= 1 && options.chunk_elements_max <= 100'000);  // fits in a frame
  sender_ = std::thread([this] { run(&RingEngine::send_all, sending_, links_.next); });
  if (size() == 1) return;
  try {
    receiver_ = std::thread([this] { run(&RingEngine::receive_all, receiving_, links_.previous); });
  } catch (...) {  // the system may have no other thread to give
    end_threads();
    throw;
  }
}

RingEngine::~RingEngine() {
  flush_small();
  cancel("the ring was closed");
  end_threads();
}

void RingEngine::end_threads() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  sender_.join();
  if (receiver_.joinable()) receiver_.join();
}

// --- what callers do ---

void RingEngine::start(RingJob job) {
  std::lock_guard lock(mutex_);
  throw_if_failed();
  TROUPE_CHECK(idle() && !here_, "a reduction is under way");
  here_ = is_small(job);
  const size_t groups = job.plan.groups(),
               frames = here_ ? size() - 1 : groups * 2 * (size() - 1) + (size() - 1);
  job_ = std::move(job);
  seen_.assign(groups * size(), 0);
  left_of_group_.assign(groups, 2 * (size() - 1));
  bucket_is_ready_.assign(job_.plan.groups_before.size() - 1, false);
  groups_ready_ = groups_done_ = originated_ = sent_ = 0;
  received_ = 0;
  to_send_ = to_receive_ = frames;
  own_meta_.reset();
  meta_sent_ = false;
  meta_ = {};
  meta_seen_.assign(size(), false);
  outbox_.clear();
  unwritten_ = handing_over_ = false;
  stats_ = {};
  completed_ = false;
  if (here_) return;
  sending_ = true;
  receiving_ = size() > 1;
  changed_.notify_all();
}

void RingEngine::bucket_ready(size_t index) {
  std::lock_guard lock(mutex_);
  TROUPE_CHECK(index < bucket_is_ready_.size(), "bucket {} of {}", index, bucket_is_ready_.size());
  bucket_is_ready_[index] = true;
  const size_t front =
      size_t(std::find(bucket_is_ready_.begin(), bucket_is_ready_.end(), false) - bucket_is_ready_.begin());
  groups_ready_ = job_.plan.groups_before[front];
  wake_sender();
}

void RingEngine::check() {
  std::lock_guard lock(mutex_);
  throw_if_failed();
}

void RingEngine::finish(const SumMeta& own) {
  std::lock_guard lock(mutex_);
  TROUPE_CHECK(!own_meta_, "finished twice");
  bucket_is_ready_.assign(bucket_is_ready_.size(), true);
  groups_ready_ = job_.plan.groups();
  own_meta_ = own;
  meta_ += own;
  wake_sender();
  ended_.notify_all();
}

SumMeta RingEngine::wait(Deadline deadline) {
  std::unique_lock lock(mutex_);
  const auto over = [&] { return (here_ ? own_meta_.has_value() : idle()) || (failure_ && !completed_); };
  const bool in_time = ended_.wait_until(lock, deadline, over);
  const bool reduces = in_time && here_ && !failure_;
  at_work_here_ = reduces;
  lock.unlock();
  if (!in_time) guarded([&] { throw late(); });
  if (reduces) guarded([&] { reduce_here(deadline); });
  lock.lock();
  if (std::exchange(here_, false)) completed_ = reduces && !failure_;
  at_work_here_ = false;
  ended_.wait(lock, [this] {
    return idle();
  });  // after a failure all waits have ended: the callers' memory is free again
  if (!completed_) throw_if_failed();  // a member that left once all was done does no harm
  return meta_;
}

PeerError RingEngine::late() const {
  const BulkPeer& previous = members_[(position_ + size() - 1) % size()];
  return {ErrorKind::timeout, previous.rank,
          fmt::format("the reduction of step {} is not done in time: {} of {} frames have come from {}",
                      job_.step, received_.load(), to_receive_, previous.text())};
}

void RingEngine::cancel(const std::string& why) {
  const BulkPeer& self = members_[position_];
  const PeerError reason(ErrorKind::cancelled, self.rank,
                         fmt::format("{} ended the ring: {}", self.text(), why));
  fail(std::make_exception_ptr(reason), reason);
}

void RingEngine::stop(const std::string& why) {
  cancel(why);
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return idle(); });
}

RingStats RingEngine::stats() {
  std::lock_guard lock(mutex_);
  if (links_.previous) stats_.resends_asked = links_.previous->resends_asked();
  return stats_;
}

// --- failing ---

void RingEngine::throw_if_failed() {
  if (failure_) std::rethrow_exception(failure_);
}

// Ends everything here, and tells both neighbours whose fault it is: so the news goes round the ring both
// ways.
void RingEngine::fail(std::exception_ptr failure, const PeerError& reason) {
  {
    std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = failure;
    changed_.notify_all();
    ended_.notify_all();
  }
  const Deadline deadline = deadline_in_ms(kAbortMs);
  if (links_.next) links_.next->abort(reason, deadline);
  if (links_.previous) links_.previous->abort(reason, deadline);
}

void RingEngine::guarded(const std::function<void()>& action) try {
  action();
} catch (const PeerError& error) {
  fail(std::current_exception(), error);
} catch (const Error& error) {
  const BulkPeer& previous = members_[(position_ + size() - 1) % size()];
  const PeerError theirs(error.kind(), previous.rank, fmt::format("{}: {}", previous.text(), error.what()));
  fail(std::make_exception_ptr(theirs), theirs);
} catch (const std::exception& error) {
  const BulkPeer& self = members_[position_];
  fail(std::current_exception(),
       PeerError(ErrorKind::protocol, self.rank, self.text() + " failed: " + error.what()));
}

PeerError RingEngine::protocol_error(const std::string& what) const {
  const BulkPeer& previous = members_[(position_ + size() - 1) % size()];
  return PeerError(ErrorKind::protocol, previous.rank, fmt::format("{} sent {}", previous.text(), what));
}

// --- threads ---

void RingEngine::run(void (RingEngine::*work)(), bool& working, std::optional<BulkConnection>& link) {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const bool woken = changed_.wait_for(lock, kTick, [&] { return working || stopping_; });
    if (stopping_) break;
    lock.unlock();
    if (woken)
      guarded([&] { (this->*work)(); });
    else if (link)
      tend(*link);
    lock.lock();
    if (!woken) continue;
    working = false;
    completed_ = idle() && !failure_;
    if (completed_) unflushed_ = false;  // the next member has acknowledged all of it
    ended_.notify_all();
  }
}

// A member that is ahead of us must not think us dead. Within a reduction, when our part is done, the
// neighbour may have all it needs and be gone: that is no failure yet, and the next use of the link tells.
void RingEngine::tend(BulkConnection& link) try { link.tend(); } catch (const PeerError& error) {
  if (std::lock_guard lock(mutex_); !idle() || at_work_here_) return;
  flush_small();  // failing drops what the next member may still lack
  fail(std::current_exception(), error);
}

void RingEngine::complete_all_alone() {
  std::unique_lock lock(mutex_);
  while (groups_done_ < job_.plan.groups() || !own_meta_) {
    throw_if_failed();
    if (groups_done_ == groups_ready_) {
      changed_.wait(lock);
      continue;
    }
    const Bucket chunk = job_.plan.chunk(groups_done_, 0);
    lock.unlock();
    job_.work->complete_alone(chunk);
    lock.lock();
    ++groups_done_;
  }
}

void RingEngine::receive_all() {
  for (; received_ < to_receive_; ++received_) {
    take(links_.previous->receive(deadline_in_ms(kFarMs)));
    send_own_or_leave();
  }
  links_.previous->acknowledge(deadline_in_ms(kFarMs));
}

void RingEngine::check_step(const Frame& frame) const {
  if (frame.head.step != job_.step)
    throw protocol_error(fmt::format("a chunk of step {} in step {}", frame.head.step, job_.step));
}

void RingEngine::take(const Frame& frame) {
  check_step(frame);
  switch (FrameType(frame.head.type)) {
    case FrameType::partial:
      return take_partial(frame);
    case FrameType::total:
      return take_total(frame);
    case FrameType::meta:
      return take_meta(frame);
    default:
      throw protocol_error(fmt::format("a frame of type {} in a reduction", frame.head.type));
  }
}

void RingEngine::check_chunk(const Frame& frame, uint8_t mark) {
  const size_t group = frame.head.bucket, k = frame.head.chunk;
  if (group >= job_.plan.groups() || k >= size())
    throw protocol_error(fmt::format("chunk {} of group {}, which does not exist", k, group));
  uint8_t& seen = seen_[group * size() + k];
  const bool never_comes = mark == kSawPartial ? k == position_ : job_.plan.owner(k) == position_;
  if (never_comes || (seen & mark) != 0)
    throw protocol_error(fmt::format("chunk {} of group {} once too often", k, group));
  seen |= mark;
  const SlotWords& slots = mark == kSawPartial ? job_.slots.arriving[k] : job_.slots.all;
  if (frame.head.slots != slots)
    throw protocol_error(
        fmt::format("chunk {} of group {} as the sum over other slots than the seal says", k, group));
}

void RingEngine::take_partial(const Frame& frame) {
  check_chunk(frame, kSawPartial);
  const size_t group = frame.head.bucket, k = frame.head.chunk;
  wait_for_bucket(job_.plan.bucket_of_group[group]);
  const Bucket chunk = job_.plan.chunk(group, k);
  FrameHead head = frame.head;
  FrameBuffer out = links_.next->buffer();
  if (job_.plan.owner(k) == position_) {
    job_.work->complete(chunk, frame.payload, out);
    head.type = uint8_t(FrameType::total);
    head.slots = job_.slots.all;
  } else {
    job_.work->combine(chunk, frame.payload, out);
    head.slots = job_.slots.leaving(k, position_);
  }
  send_or_leave({std::move(head), std::move(out)});
  count_group(group);
}

void RingEngine::take_total(const Frame& frame) {
  check_chunk(frame, kSawTotal);
  const size_t group = frame.head.bucket, k = frame.head.chunk;
  if (std::lock_guard lock(mutex_); k == position_ && group >= originated_)
    throw protocol_error(fmt::format("the total of a chunk of group {} that we have not begun", group));
  if (job_.plan.gather_end(k) != position_) pass_on(frame);
  job_.work->store(job_.plan.chunk(group, k), frame.payload);
  count_group(group);
}

void RingEngine::take_meta(const Frame& frame) {
  const size_t from = frame.head.chunk;
  MetaWords words{};
  if (from >= size() || from == position_ || meta_seen_[from] || frame.payload.size() != sizeof words ||
      frame.head.slots != job_.slots.own[from])
    throw protocol_error("integers of other slots than the seal says");
  meta_seen_[from] = true;
  std::memcpy(words.data(), frame.payload.data(), sizeof words);
  if ((from + size() - 1) % size() != position_) pass_on(frame);
  std::lock_guard lock(mutex_);
  meta_ += from_words(words);
}

void RingEngine::pass_on(const Frame& frame) {
  FrameBuffer copy = links_.next->buffer();
  const auto room = copy.resize_payload(frame.payload.size());
  if (!room.empty()) std::memcpy(room.data(), frame.payload.data(), room.size());
  send_or_leave({frame.head, std::move(copy)});
}

void RingEngine::wait_for_bucket(size_t bucket) {
  std::unique_lock lock(mutex_);
  while (!bucket_is_ready_[bucket]) {
    throw_if_failed();
    if (changed_.wait_for(lock, kTick) == std::cv_status::timeout) {
      lock.unlock();
      links_.previous->tend();
      lock.lock();
    }
  }
}

void RingEngine::count_group(size_t group) {
  std::lock_guard lock(mutex_);
  --left_of_group_[group];
  while (groups_done_ < left_of_group_.size() && left_of_group_[groups_done_] == 0) ++groups_done_;
}

}  // namespace troupe::comm
