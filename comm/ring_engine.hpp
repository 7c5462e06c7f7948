// The two threads of a Ring. The sending thread starts this member's own chunks, never more than
// groups_in_flight groups ahead of what has come back. The receiving thread takes chunks from the previous
// member and sends on what it has added to, and own chunks whose turn has come, as long as the outgoing link
// takes them at once: so most chunks wake one thread only. It never waits for that link, so a ring cannot
// lock up: what the link does not take is left to the sending thread, in the outbox, which holds at most
// 2 * groups_in_flight * members chunks because no member runs further ahead.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "comm/ring.hpp"
#include "comm/ring_plan.hpp"
#include "comm/ring_work.hpp"

namespace troupe::comm {

struct RingJob {
  int64_t step = 0;
  RingPlan plan;
  RingSlots slots;
  std::unique_ptr<RingWork> work;
};

// A reduction so small that waking threads would take most of its time is done by the thread that waits for
// it (ring_small.cpp); the two threads then only tend the links.
class RingEngine {
 public:
  RingEngine(std::vector<BulkPeer> members, size_t position, RingLinks links, RingOptions options);
  ~RingEngine();

  void start(RingJob job);
  void bucket_ready(size_t index);
  void check();
  void finish(const SumMeta& own);
  SumMeta wait(Deadline deadline);
  void cancel(const std::string& why);
  void stop(const std::string& why);
  void broadcast(size_t root, std::vector<std::byte>& bytes, size_t bytes_max, Deadline deadline);
  RingStats stats();
  size_t size() const { return members_.size(); }
  size_t position() const { return position_; }

 private:
  struct Item {
    FrameHead head;
    FrameBuffer payload;
  };
  static constexpr std::chrono::milliseconds kTick{50};         // how often a waiting thread tends its link
  static constexpr int64_t kFarMs = int64_t{24} * 3600 * 1000;  // the caller's wait and silence end earlier
  enum class FrameType : uint8_t { partial = 1, total, meta, state_size, state, whole };

  void run(void (RingEngine::*work)(), bool& working, std::optional<BulkConnection>& link);
  void end_threads();
  void tend(BulkConnection& link);
  void send_all();
  void receive_all();
  void complete_all_alone();
  bool is_small(const RingJob& job) const;
  void reduce_here(Deadline deadline);
  void send_whole(const FrameHead& head, FrameBuffer payload, Deadline deadline);
  void take_whole(const Frame& frame, size_t from, Deadline deadline);
  Bucket whole() const;
  void flush_small() noexcept;
  bool send_one();
  bool has_own() const;  // REQUIRES mutex_
  std::optional<Item> next_own();
  void take(const Frame& frame);
  void take_partial(const Frame& frame);
  void take_total(const Frame& frame);
  void take_meta(const Frame& frame);
  void check_step(const Frame& frame) const;
  void check_chunk(const Frame& frame, uint8_t mark);
  void pass_on(const Frame& frame);
  void count_group(size_t group);
  void wait_for_bucket(size_t bucket);
  void send(Item item);
  void send_or_leave(Item item);
  void send_own_or_leave();
  void wake_sender();                                     // REQUIRES mutex_
  void count_sent(const FrameHead& head, size_t bytes);   // REQUIRES mutex_
  bool idle() const { return !sending_ && !receiving_; }  // REQUIRES mutex_
  void throw_if_failed();                                 // REQUIRES mutex_
  void guarded(const std::function<void()>& action);
  void fail(std::exception_ptr failure, const PeerError& reason);
  PeerError protocol_error(const std::string& what) const;
  PeerError late() const;
  void receive_state(size_t root, std::vector<std::byte>& bytes, size_t bytes_max, Deadline deadline);
  void send_state(std::span<const std::byte> bytes, Deadline deadline);

  const std::vector<BulkPeer> members_;
  const size_t position_;
  const size_t groups_in_flight_;
  RingLinks links_;

  std::mutex mutex_;
  std::condition_variable changed_, ended_;  // for the two threads; for callers
  bool stopping_ = false;
  std::exception_ptr failure_;
  bool sending_ = false, receiving_ = false;  // the thread has a job
  bool here_ = false;                         // the job is left to the caller who waits for it
  bool at_work_here_ = false;                 // a caller's thread uses the links
  bool completed_ = false;                    // the last job came to its good end
  bool unflushed_ = false;                    // the next member may lack a part of a small reduction

  // --- the job; written by start() while both threads are idle ---
  RingJob job_;
  std::vector<uint8_t> seen_;          // (groups, members): what has come of each chunk
  std::vector<size_t> left_of_group_;  // frames still to come
  std::vector<bool> bucket_is_ready_;
  size_t groups_ready_ = 0;  // in order
  size_t groups_done_ = 0;   // in order
  size_t originated_ = 0;
  size_t sent_ = 0, to_send_ = 0;  // frames
  std::atomic<size_t> received_ = 0;
  size_t to_receive_ = 0;
  std::optional<SumMeta> own_meta_;
  bool meta_sent_ = false;
  SumMeta meta_;
  std::vector<bool> meta_seen_;
  std::deque<Item> outbox_;
  bool unwritten_ = false;     // the link has taken a frame that it could not write to its end
  bool handing_over_ = false;  // the receiving thread gives it one, which sent_ does not count yet
  RingStats stats_;

  std::thread sender_, receiver_;
};

}  // namespace troupe::comm
