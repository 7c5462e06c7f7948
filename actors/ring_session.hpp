// A node's place in the ring of a view: connects, adds up the sums of a step, passes a total around. Where
// all members' devices can add without it, they do, and the ring tells them of one another. Called by one
// thread, except supersede() and cancel(), which any thread may call at any time to end what is under way.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "actors/job_context.hpp"
#include "comm/ring.hpp"
#include "scheduler/protocol.hpp"

namespace troupe::comm {
class DeviceGroup;
}

namespace troupe::actors {

class TrainEngine;

class RingSession {
 public:
  explicit RingSession(JobContextPtr context) : context_(std::move(context)) {}

  // Throws PeerError that names who is missing, or Error(cancelled) once the view is superseded. One member:
  // nothing to connect.
  void connect(const scheduler::View& view);
  // The sum over all members of the current step; the engine's total (or floats) as well. With one member its
  // own. Throws PeerError, or Error(cancelled).
  comm::SumMeta reduce(TrainEngine& engine, const scheduler::Seal& seal);
  bool alone() const { return view_.members.size() == 1; }
  // Everyone ends with the bytes of `root`. Throws like reduce().
  void broadcast(scheduler::Rank root, std::vector<std::byte>& bytes, size_t bytes_max);

  // Views of lower ballots are void: whatever waits for one of them ends.
  void supersede(const scheduler::Ballot& ballot);
  // The job is over.
  void cancel(const std::string& why);

 private:
  comm::BulkSession session() const;
  std::string reached_at(const scheduler::Member& member) const;
  std::shared_ptr<comm::Ring> ring() const;
  bool in_group(TrainEngine& engine, comm::Ring& ring);
  bool form_group(comm::DeviceGroup& group, comm::Ring& ring);
  comm::SumMeta reduce_in_group(TrainEngine& engine);
  void try_group(const std::function<void()>& run);
  void require_current() const;  // REQUIRES mutex_

  JobContextPtr context_;
  scheduler::View view_;
  size_t position_ = 0;
  std::optional<bool>
      in_group_;              // of this view: whether devices add without the ring; nullopt: not asked yet
  int group_failures_ = 0;    // in a row
  mutable std::mutex mutex_;  // guards what follows
  std::shared_ptr<std::atomic<bool>> give_up_ = std::make_shared<std::atomic<bool>>(false);  // of a connect
  std::shared_ptr<comm::Ring> ring_;
  scheduler::Ballot floor_;
  std::optional<std::string> cancelled_;
};

}  // namespace troupe::actors
