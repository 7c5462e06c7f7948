// The state behind a BulkConnection: frames that wait for their acknowledgement, the frame being read, and
// who of the calling threads polls the channel. Lost or damaged frames are repeated from the first one
// missing on (go-back-N). Every member function REQUIRES `mutex` held unless it says otherwise.
#pragma once

#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "comm/bulk.hpp"
#include "comm/byte_channel.hpp"
#include "comm/frame.hpp"

namespace troupe::comm {

// The payload of an abort frame: whose fault it is, then the text.
struct AbortHead {
  uint32_t rank = 0;
  uint32_t kind = 0;
};
inline constexpr size_t kAbortTextMax = 512;

struct BulkConnection::Core {
  Core(std::unique_ptr<ByteChannel> channel, const BulkPeer& peer, const BulkSession& session,
       Transport transport);

  struct Outgoing {
    FrameBuffer buffer;
    uint64_t sequence = 0;
    size_t bytes = 0;         // of the window
    size_t stream_bytes = 0;  // that go through the channel, from buffer.begin_ on
  };

  // A pause of our own process counts neither as the peer's silence nor as damage: no more than one tick at a
  // time, of kTicks in silence_max.
  static constexpr int kTicks = 8;

  const BulkPeer peer;
  const BulkBallot ballot;
  const Transport transport;
  const std::chrono::milliseconds silence_max;
  const size_t window_bytes;
  const std::unique_ptr<ByteChannel> channel;
  const SharedPlaces places;

  std::mutex mutex;
  std::condition_variable changed;
  bool read_polled = false;  // a thread waits for the channel to become readable: only that thread reads
  std::optional<PeerError> failure;
  bool cancelled = false;

  // --- outgoing ---
  std::deque<Outgoing> unacknowledged;
  std::vector<FrameBuffer> spare;
  size_t unacknowledged_bytes = 0;
  size_t bytes_since_ask = 0;  // sent since the last frame that asked for an acknowledgement
  int frames_since_ask = 0;    // the same
  uint64_t next_sequence = 0;
  uint64_t acknowledged = 0;       // all frames below
  size_t write_index = 0;          // in unacknowledged
  size_t write_offset = 0;         // in that frame
  bool write_begun = false;        // of that frame: it goes to its end before anything else (TLS insists)
  bool rewind = false;             // at the next frame boundary: from the first unacknowledged on
  std::vector<std::byte> control;  // one encoded control frame that is being written
  size_t control_offset = 0;
  std::vector<std::byte> abort_frame;
  bool owes_ack = false, owes_resend = false, owes_ask = false, owes_alive = false;
  bool write_failed = false;
  Clock::time_point last_write = Clock::now();

  // --- incoming ---
  std::vector<std::byte> input;
  size_t input_begin = 0, input_end = 0;
  uint64_t expected = 0;         // the next data frame's number
  bool resend_asked = false;     // and the peer has not begun to resend, as far as we know
  Clock::time_point asked_at{};  // the last time
  bool searching_head = false;   // after a damaged head: until the next intact one
  uint64_t resends_asked = 0;
  int damaged_in_a_row = 0;       // since the next frame had come, or nothing was missing
  Clock::duration damaged_for{};  // as long
  bool frame_ready = false;       // at ready_body, in `ready` or in a place, lies the data of ready_head
  bool handed_out = false;        // and receive() has given it to the user
  bool input_blocked = false;     // `input` begins with the data frame after it
  std::vector<std::byte> ready;
  WireHead ready_head;
  const std::byte* ready_body = nullptr;
  bool answered_early = false;  // an acknowledgement left it out, being in use: another has to follow
  uint64_t heard = 0;           // reads that gave bytes

  void progress();   // reads and writes what is possible now
  void show_life();  // when nothing else was written for a while
  void release_frame();
  // Until done(), polling or letting another thread poll. `lock` holds `mutex`.
  template <typename Done>
  void wait_until(std::unique_lock<std::mutex>& lock, Done done, Deadline deadline, const char* what);
  // Until done() or for `look`, giving way to other threads but without sleep.
  template <typename Done>
  void look_for(std::unique_lock<std::mutex>& lock, Done done, Clock::duration look);
  void enqueue(const FrameHead& head, FrameBuffer payload);
  bool has_room(const FrameHead& head, const FrameBuffer& payload) const;
  bool all_written() const { return write_index >= unacknowledged.size() && control.empty(); }
  bool has_output() const;
  bool wants_input() const { return !input_blocked && (!frame_ready || handed_out); }
  void fail(ErrorKind kind, const std::string& what);
  void write_abort(std::unique_lock<std::mutex>& lock, const PeerError& error, Deadline deadline);

 private:
  void wait_once(std::unique_lock<std::mutex>& lock, Deadline until);
  [[noreturn]] void throw_timeout(const char* what, bool silent, Clock::duration waited) const;
  void read_some();
  bool parse_some();
  bool is_ready_in_place() const { return frame_ready && ready_head.is_in_place(); }
  const std::byte* body_in_place(const WireHead& head, const std::byte* reference);
  void take_data(const WireHead& head, const std::byte* body);
  void take_control(const WireHead& head, std::span<const std::byte> payload);
  void take_acknowledgement(const WireHead& head);
  void take_abort(std::span<const std::byte> payload);
  void miss_frame(uint64_t sequence);
  void note_unknown_damage();
  void note_damage();
  void note_intact();
  void make_room(size_t bytes);
  void write_some();
  bool write_bytes(std::span<const std::byte> bytes, size_t& offset);
  bool next_control();
  void encode_control(ControlType type, uint64_t sequence);
  void drop_acknowledged();
  uint64_t written() const;  // number of the next frame to be written
};

template <typename Done>
void BulkConnection::Core::wait_until(std::unique_lock<std::mutex>& lock, Done done, Deadline deadline,
                                      const char* what) {
  const auto tick = silence_max / kTicks;
  const auto began = Clock::now();
  auto seen = heard;
  Clock::duration silent{};
  for (;;) {
    if (cancelled) throw PeerError(*failure);
    progress();
    if (done()) return;
    if (failure) throw PeerError(*failure);
    const auto now = Clock::now();
    if (silent >= silence_max || now >= deadline) throw_timeout(what, now < deadline, now - began);
    wait_once(lock, std::min(deadline, now + tick));
    // Nor does the time count in which our own side has not taken the frame that is there.
    silent = heard != seen || !wants_input() ? Clock::duration{}
                                             : silent + std::min<Clock::duration>(Clock::now() - now, tick);
    seen = heard;
  }
}

template <typename Done>
void BulkConnection::Core::look_for(std::unique_lock<std::mutex>& lock, Done done, Clock::duration look) {
  for (const auto until = Clock::now() + look; !done() && !failure && Clock::now() < until;) {
    progress();
    lock.unlock();
    std::this_thread::yield();
    lock.lock();
  }
}

}  // namespace troupe::comm
