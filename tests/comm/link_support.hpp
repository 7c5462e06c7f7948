// What the tests of links share: a hub whose events are recorded, and waits for them with a generous
// deadline.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "comm/link.hpp"
#include "comm/messages.hpp"
#include "comm/messages.pb.h"

namespace troupe::comm::test {

inline constexpr auto kDeadline = std::chrono::seconds(60);

struct Event {
  enum class Kind : uint8_t { up = 1, message, down, refused };
  Kind kind;
  LinkPeer peer;
  wire::Envelope envelope;
  ErrorKind error{};
  std::string text;
};

class Recorder {
 public:
  LinkEvents events() {
    return {[this](const LinkPeer& peer) {
              add({Event::Kind::up, peer, {}, {}, {}});
            },
            [this](const LinkPeer& peer, wire::Envelope envelope) {
              { const std::lock_guard pass(gate); }
              add({Event::Kind::message, peer, std::move(envelope), {}, {}});
            },
            [this](const LinkPeer& peer, const Error& why) {
              add({Event::Kind::down, peer, {}, why.kind(), why.what()});
            },
            [this](const Error& why) {
              add({Event::Kind::refused, {}, {}, why.kind(), why.what()});
            }};
  }

  std::mutex gate;  // held by a test: messages wait in their handler

  using Test = std::function<bool(const Event&)>;
  size_t count(const Test& test) const {
    const std::lock_guard lock(mutex_);
    return count_locked(test);
  }
  // Waits until `times` events pass the test.
  bool wait(const Test& test, size_t times = 1, std::chrono::milliseconds deadline = kDeadline) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, deadline, [&] { return count_locked(test) >= times; });
  }
  // The first event that passes, waiting for it. Fails the test case when none comes.
  Event first(const Test& test) const {
    REQUIRE(wait(test));
    const std::lock_guard lock(mutex_);
    for (const Event& event : events_)
      if (test(event)) return event;
    return {};
  }
  std::vector<Event> all() const {
    const std::lock_guard lock(mutex_);
    return events_;
  }
  void clear() {
    const std::lock_guard lock(mutex_);
    events_.clear();
  }

 private:
  void add(Event event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    changed_.notify_all();
  }
  size_t count_locked(const Test& test) const {
    size_t n = 0;
    for (const Event& event : events_) n += test(event) ? 1 : 0;
    return n;
  }

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<Event> events_;
};

inline Recorder::Test up(const std::string& node) {
  return [node](const Event& event) { return event.kind == Event::Kind::up && event.peer.node == node; };
}
inline Recorder::Test down(const std::string& node) {
  return [node](const Event& event) { return event.kind == Event::Kind::down && event.peer.node == node; };
}
inline Recorder::Test message(const std::string& node) {
  return [node](const Event& event) { return event.kind == Event::Kind::message && event.peer.node == node; };
}
inline bool refused(const Event& event) {
  return event.kind == Event::Kind::refused;
}

// A hub on a port of the system's choice, with patience enough for a loaded machine unless a test says
// otherwise.
struct Node {
  explicit Node(const std::string& name, const std::function<void(LinkOptions&)>& change = {})
      : options(defaults(name, change)), hub(options, recorder.events()) {}

  static LinkOptions defaults(const std::string& name, const std::function<void(LinkOptions&)>& change) {
    LinkOptions options;
    options.node = name;
    options.cluster = "test";
    options.incarnation = new_incarnation();
    if (!name.starts_with("client:")) options.listen_address = "127.0.0.1:0";
    options.interval_ms = 200;
    options.patience_ms = 30000;
    if (change) change(options);
    return options;
  }
  void link_to(const Node& other) {
    hub.dial(other.options.node, other.hub.listen_address());
    REQUIRE(recorder.wait(up(other.options.node)));
    REQUIRE(other.recorder.wait(up(options.node)));
  }

  Recorder recorder;
  LinkOptions options;
  LinkHub hub;
};

inline wire::Envelope claim(uint64_t sequence) {
  wire::Envelope envelope;
  envelope.mutable_claim()->set_sequence(sequence);
  return envelope;
}
inline wire::Envelope chunk(uint64_t index, size_t bytes) {
  wire::Envelope envelope;
  envelope.mutable_prepare_chunk()->set_index(index);
  envelope.mutable_prepare_chunk()->set_documents(std::string(bytes, 'x'));
  return envelope;
}

}  // namespace troupe::comm::test
