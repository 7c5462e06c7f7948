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
  // Begins the reduction while the last of this node's slots run: sends what they have folded, or adds it in
  // the group of devices, and returns when they are done. All but this node's integers, without which no
  // member's total is whole: they are for reduce() of the same seal. Throws like it, which then throws too.
  // Does nothing where the engine's sum can be read only when no slot runs, or the seal is of another view.
  void feed(const std::shared_ptr<TrainEngine>& engine, const scheduler::Seal& seal);
  // Ends a reduction that was fed only. When it returns, nothing uses the engine's sum or total.
  void stop_fed();
  // Whether what was fed is under way in a group of devices: a snapshot of the engine would then wait for the
  // slowest member, and nothing would tell it that the view is over. A group whose view is over is left here.
  bool adds_in_group();
  // The sum over all members of the current step; the engine's total (or floats) as well. With one member its
  // own. Throws PeerError, or Error(cancelled); a group of devices has been left then.
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
  std::vector<std::vector<uint64_t>> contributions_of(const scheduler::Seal& seal) const;
  scheduler::SlotSet own_slots(const scheduler::Seal& seal) const;
  void feed_ring(TrainEngine& engine, const scheduler::Seal& seal, comm::Ring& ring);
  void feed_group(TrainEngine& engine, const scheduler::Seal& seal);
  bool in_group(TrainEngine& engine, comm::Ring& ring);
  bool form_group(comm::DeviceGroup& group, comm::Ring& ring);
  std::string new_group_id(const comm::DeviceGroup& group);
  comm::SumMeta sum_of_all(TrainEngine& engine, const scheduler::Seal& seal);
  comm::SumMeta finish_in_group(TrainEngine& engine);
  void try_group(const std::function<void()>& run);
  void require_current() const;  // REQUIRES mutex_

  JobContextPtr context_;
  scheduler::View view_;
  size_t position_ = 0;
  std::optional<bool>
      in_group_;  // of this view: whether devices add without the ring; nullopt: not asked yet
  // Set from feed() to the end of reduce(): the ring or the group reads its sum, and lacks our integers
  // alone.
  std::shared_ptr<TrainEngine> fed_from_;
  int group_failures_ = 0;    // in a row
  mutable std::mutex mutex_;  // guards what follows
  std::shared_ptr<std::atomic<bool>> give_up_ = std::make_shared<std::atomic<bool>>(false);  // of a connect
  std::shared_ptr<comm::Ring> ring_;
  scheduler::Ballot floor_;
  std::optional<std::string> cancelled_;
};

}  // namespace troupe::actors
