// One gRPC stream of Envelopes as bytes, each with its checksum, at either end, with its bounded sending
// queue: one write at a time, in order. Keeps itself alive until it has ended. Thread-safe; the owner's
// callbacks come from gRPC's threads, received() one at a time and only after read_next(), ended() last and
// once. Internal to the links.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/link.hpp"
#include "kernels/base/error.hpp"

namespace troupe::comm {

// How a stream ended: by our own decision, or by the other end's, or because the connection broke.
struct StreamEnd {
  enum class Cause : uint8_t { ours = 1, closed, refused, lost };
  Cause cause = Cause::lost;
  ErrorKind kind = ErrorKind::peer_lost;
  std::string detail;
};

class LinkStream : public std::enable_shared_from_this<LinkStream> {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void received(std::string_view bytes) = 0;
    virtual void received_damaged() = 0;  // in place of received(): not what was sent, or one was lost before
    virtual void ended(const StreamEnd& end) = 0;
  };

  virtual ~LinkStream();
  LinkStream(const LinkStream&) = delete;
  LinkStream& operator=(const LinkStream&) = delete;

  // Call once, before anything else; the stream holds the owner until it has ended.
  void start(std::shared_ptr<Owner> owner);

  Sent send(std::string bytes, size_t queue_bytes_max);
  bool idle() const;  // nothing queued and nothing being written
  void read_next();   // where writing has ended and this is not within received(): ends the stream instead

  // Each of these ends the stream; the first reason given is the one that ended() tells.
  void finish();                  // after the queue is written; goes on receiving until the other end is done
  void refuse(const Error& why);  // drops the queue; the listening end tells the other one why
  void cancel(const Error& why);  // drops everything at once

  // Names in the certificate that the dialling end showed; empty at that end, and without TLS.
  virtual std::vector<std::string> peer_names() const { return {}; }

 protected:
  LinkStream();

  // Called with the lock held, never again after the stream is done.
  virtual void start_call() = 0;
  virtual void start_read() = 0;
  virtual void start_write(std::string bytes) = 0;
  virtual void end_writes() = 0;                    // no write is under way and none will follow
  virtual void end_refusing(const Error& why) = 0;  // a write may be under way
  virtual void end_at_once() = 0;

  // For the reactors.
  void on_read(bool ok, std::string_view bytes);
  void on_written(bool ok);
  void on_done(StreamEnd end);

 private:
  enum class State : uint8_t { open = 1, finishing, cancelled, done };

  void write_next();
  void drop_queue();

  mutable std::mutex mutex_;
  State state_ = State::open;
  bool writing_ = false;
  bool writes_ended_ = false;  // from then on the reactions alone keep gRPC's call alive
  int reactions_ = 0;          // to messages, under way: one, or two while the next one overtakes its end
  size_t queued_bytes_ = 0;    // with what is being written
  size_t writing_bytes_ = 0;
  uint64_t sent_ = 0, received_ = 0;  // messages
  std::deque<std::string> queue_;
  std::optional<StreamEnd> ours_;
  std::shared_ptr<Owner> owner_;
  std::shared_ptr<LinkStream> self_;  // until on_done
};

// Where dialled streams go when their last owner lets go of them, until clear() destroys them. gRPC's threads
// must not: with the last channel of a process they would destroy the queue that they serve themselves.
// Thread-safe.
class StreamGrave : public std::enable_shared_from_this<StreamGrave> {
 public:
  StreamGrave() = default;
  ~StreamGrave();  // leaks what is in it; see clear()
  StreamGrave(const StreamGrave&) = delete;
  StreamGrave& operator=(const StreamGrave&) = delete;

  std::shared_ptr<LinkStream> keep(std::unique_ptr<LinkStream> stream);  // buried here one day
  bool wait_for_all(std::chrono::steady_clock::time_point deadline);  // true: all that were kept are buried
  void clear();                                                       // never from one of gRPC's threads

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<LinkStream>> dead_;
  size_t alive_ = 0;
};

}  // namespace troupe::comm
