// A node's place in the ring of a view: connects, adds up the sums of a step, passes a state around. Called
// by one thread, except cancel(), which any thread may call at any time to end what is under way.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "actors/job_context.hpp"
#include "comm/ring.hpp"
#include "scheduler/protocol.hpp"

namespace troupe::actors {

class TrainEngine;

class RingSession {
 public:
  explicit RingSession(JobContextPtr context) : context_(std::move(context)) {}

  // Throws PeerError or Error(timeout) that names who is missing. One member: nothing to connect.
  void connect(const scheduler::View& view);
  // The sum over all members of the current step; the engine's total (or floats) as well. With one member its
  // own.
  comm::SumMeta reduce(TrainEngine& engine, const scheduler::Seal& seal);
  bool alone() const { return view_.members.size() == 1; }

  // Everyone ends with the bytes of `root`'s file: `from` is read there, `to` written elsewhere (and synced
  // by its reader's checks, not here).
  void pass_file(scheduler::Rank root, const std::filesystem::path& from, const std::filesystem::path& to);

  void cancel(const std::string& why);

 private:
  comm::BulkSession session() const;

  JobContextPtr context_;
  scheduler::View view_;
  std::vector<comm::BulkPeer> members_;
  size_t position_ = 0;
  std::mutex mutex_;  // guards the two below against cancel()
  std::shared_ptr<comm::Ring> ring_;
  std::optional<std::string> cancelled_;
};

}  // namespace troupe::actors
