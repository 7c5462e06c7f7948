// The inside of a LinkHub: which nodes are dialled, which are linked, and what happens to their streams.
// One mutex guards the tables; it is never held while an event is told. A stream's own lock comes after it.
// A node's events cannot overtake one another: `down` is told from the last callback of its stream, and a
// stream that takes another's place says nothing and reads nothing until then. Internal to the links.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "comm/link.hpp"
#include "comm/link_grpc.hpp"
#include "comm/link_stream.hpp"

namespace troupe::comm {

using LinkClock = std::chrono::steady_clock;

// One stream in the eyes of the hub. Fields without comment are guarded by the hub's mutex.
class LinkSession final : public LinkStream::Owner, public std::enable_shared_from_this<LinkSession> {
 public:
  enum class Stage : uint8_t {
    greeting = 1,  // has not said hello
    waiting,       // for the end of the stream whose place it takes
    rising,        // its `up` is being told
    up,
    refused,  // turned away; nothing it sends counts
  };

  LinkSession(std::shared_ptr<LinkHub::Core> hub, std::shared_ptr<LinkStream> stream, std::string dialled,
              std::string address);
  void received(std::string_view bytes) override;
  void received_damaged() override;
  void ended(const StreamEnd& end) override;

  const std::shared_ptr<LinkHub::Core> hub_;
  const std::shared_ptr<LinkStream> stream_;
  const std::string dialled_;  // the node; empty when we were dialled
  const std::string address_;  // that was dialled
  const LinkClock::time_point started_;
  std::atomic<LinkClock::rep> heard_;          // when something last came
  std::atomic<Stage> stage_{Stage::greeting};  // changed under the hub's mutex
  LinkPeer peer_;                              // set once, before `waiting` or `rising`
  LinkClock::time_point sent_;                 // the last sign of life
  std::optional<StreamEnd> ended_while_rising_;
};

class LinkHub::Core final : public std::enable_shared_from_this<LinkHub::Core> {
 public:
  Core(LinkOptions options, LinkEvents events);
  ~Core();
  void start();  // listens and starts the timer
  std::string listen_address() const { return listening_; }
  void dial(const std::string& node, const std::string& address);
  void forget(const std::string& node);
  Sent send(const std::string& node, const wire::Envelope& envelope);
  void close(int deadline_ms);

  // For sessions.
  void received(LinkSession& session, std::string_view bytes);
  void received_damaged(LinkSession& session);
  void ended(const std::shared_ptr<LinkSession>& session, const StreamEnd& end);

 private:
  using SessionPointer = std::shared_ptr<LinkSession>;

  struct Dial {
    Address address;
    SessionPointer attempt;  // under way or linked
    LinkClock::time_point next{};
    int pause_ms = 0;  // before the next attempt
    std::string told;  // the last reason that `down` gave
  };
  struct Peer {
    SessionPointer current, waiting;
    std::string incarnation;          // the newest that was linked
    std::deque<std::string> retired;  // those before it, newest last
  };

  // link_hub.cpp: what callers ask for
  void start_attempt(const std::string& node, Dial& dial);

  // link_sessions.cpp: what streams report
  std::shared_ptr<LinkStream::Owner> accept(const std::shared_ptr<LinkStream>& stream);
  void greet(LinkSession& session, std::string_view bytes);
  std::optional<Error> admit(const SessionPointer& session);
  bool crosses(const LinkSession& current, const LinkSession& later) const;
  std::optional<Error> fence(Peer& peer, const std::string& node, const std::string& incarnation);
  void raise(const SessionPointer& session);
  void turn_away(LinkSession& session, const Error& why);
  void bury(const SessionPointer& session, const StreamEnd& end);
  Error reason(const LinkSession& session, const StreamEnd& end) const;
  void tell_failed_dial(LinkSession& session, const Error& why);

  // link_timer.cpp: what time brings
  void run_timer();
  void check_session(const SessionPointer& session, LinkClock::time_point now);
  LinkClock::time_point start_due_dials(LinkClock::time_point now);

  const LinkOptions options_;
  const LinkEvents events_;
  TransportSettings settings_;
  std::string hello_;  // encoded
  std::string listening_;
  std::unique_ptr<LinkListener> listener_;
  const std::shared_ptr<StreamGrave> grave_ = std::make_shared<StreamGrave>();

  mutable std::mutex mutex_;
  std::condition_variable changed_;  // for the timer, and for close() waiting for sessions to end
  std::map<std::string, Dial> dials_;
  std::map<std::string, Peer> peers_;
  std::set<SessionPointer> sessions_;
  bool closing_ = false;
  LinkClock::time_point refusals_since_{};
  int refusals_ = 0;
  std::mutex closing_mutex_;  // one close() at a time
  std::thread timer_;
};

}  // namespace troupe::comm
