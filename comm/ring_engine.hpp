// The two threads of a Ring. The sending thread starts this member's own chunks, never more than
// groups_in_flight groups ahead of what has come back, and passes on what the receiving thread has added to.
// The receiving thread takes chunks from the previous member and never waits for the outgoing link, so a ring
// cannot lock up: what it has made lies in the outbox, which holds at most 2 * groups_in_flight * members
// chunks because no member runs further ahead.
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

class RingEngine {
 public:
  RingEngine(std::vector<BulkPeer> members, size_t position, RingLinks links, RingOptions options);
  ~RingEngine();

  void start(RingJob job);
  void bucket_ready(size_t index);
  void finish(const SumMeta& own);
  SumMeta wait(Deadline deadline);
  void cancel(const std::string& why);
  void broadcast(size_t root, std::vector<std::byte>& bytes, size_t bytes_max, Deadline deadline);
  RingStats stats();
  size_t size() const { return members_.size(); }
  size_t position() const { return position_; }

 private:
  struct Item {
    FrameHead head;
    FrameBuffer payload;
  };
  static constexpr std::chrono::milliseconds kTick{50};  // how often a waiting thread tends its link
  enum class FrameType : uint8_t { partial = 1, total, meta, state_size, state };

  void run(void (RingEngine::*work)(), bool& working, std::optional<BulkConnection>& link);
  void tend(BulkConnection& link, bool between);
  void send_all();
  void receive_all();
  void complete_all_alone();
  bool send_next();
  void originate(size_t group);
  void take(const Frame& frame);
  void take_partial(const Frame& frame);
  void take_total(const Frame& frame);
  void take_meta(const Frame& frame);
  void check_chunk(const Frame& frame, uint8_t mark);
  void pass_on(const Frame& frame);
  void count_group(size_t group);
  void wait_for_bucket(size_t bucket);
  void push(FrameHead head, FrameBuffer payload);
  void send(const FrameHead& head, FrameBuffer payload);
  void throw_if_failed();  // REQUIRES mutex_
  void guarded(const std::function<void()>& action);
  void fail(std::exception_ptr failure, const PeerError& reason);
  PeerError protocol_error(const std::string& what) const;
  void receive_state(size_t root, std::vector<std::byte>& bytes, size_t bytes_max, Deadline deadline);
  void send_state(std::span<const std::byte> bytes, Deadline deadline);

  const std::vector<BulkPeer> members_;
  const size_t position_;
  const RingOptions options_;
  RingLinks links_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::exception_ptr failure_;
  bool sending_ = false, receiving_ = false;  // the thread has a job
  bool completed_ = false;                    // the last job came to its good end

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
  RingStats stats_;

  std::thread sender_, receiver_;
};

}  // namespace troupe::comm
