// One job in the eyes of the client that orders it: it shows what the nodes say, passes Ctrl-C on, brings
// local nodes back, and ends when a node has said how the job has ended or none is left. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/client/cluster_client.hpp"
#include "actors/client/known_nodes.hpp"
#include "actors/client/progress.hpp"
#include "actors/client/train_client.hpp"
#include "actors/job_start.hpp"
#include "kernels/base/error.hpp"

namespace troupe::actors {

class LocalCluster;
class StopSignals;

// What a node has said of a job that therefore ends.
struct Verdict : Error {
  Verdict(const Error& error, bool job_has_begun) : Error(error), begun(job_has_begun) {}
  bool begun;
};

class TrainRun {
 public:
  // `local`: whose nodes these are; null where they were started by others. `nodes`: those that are linked.
  // All but `nodes` outlive it.
  TrainRun(const TrainOptions& options, ClusterClient& client, const StopSignals& signals,
           LocalCluster* local, const std::vector<std::string>& nodes);
  // Gives the order and stays until the job ends: 0 or 130. Throws Verdict, or an Error for what no node has
  // said.
  int follow();
  bool begun() const { return view_.first != 0; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Gone {
    std::string node, why;
    bool may_come_back = false;
  };
  struct Restart {      // of one local node
    bool runs = false;  // again, as far as is known
    Clock::time_point started{};
    std::chrono::seconds pause{0};  // before the next try
    Clock::time_point at{};         // of that
  };

  void start();
  void stop();
  wire::Envelope stop_order() const;
  void take_back(const std::string& why);
  void bring_back();
  void pause(Restart& restart, const std::string& what, const std::string& why);
  bool any_runs() const;
  int conclude(const wire::JobEnded& ended);

  void handle(const ClusterEvent& event);
  void on_event(const std::string& node, const wire::Envelope& message);
  void left(const std::string& node);
  void on_notice(const std::string& node, const std::string& what);
  void on_status(const std::string& node, bool has_the_job);
  void on_view(const std::string& node, const wire::Envelope& message);
  void meet_guests(const wire::Event& view);
  void ended(const std::string& node, const wire::Envelope& message);
  void takes_part_no_more(const std::string& node, std::string why, bool refused);
  void found(const std::string& node);
  void lost(const ClusterEvent& event);
  void without(const Gone& gone);
  void none_is_left();
  void wait_no_more();

  const TrainOptions& options_;
  const std::string job_id_ = job_id_of(config::canonical_text(options_.job));
  ClusterClient& client_;
  const StopSignals& signals_;
  LocalCluster* local_;
  Progress progress_;
  KnownNodes nodes_;
  std::optional<Gone> last_gone_;  // of those that took part
  std::string last_notice_;
  int stops_ = 0;
  int64_t shown_step_ = -1;
  std::pair<uint64_t, uint32_t> view_;     // the newest that was shown
  std::map<size_t, Restart> restarts_;     // of local nodes
  bool waits_ = false;                     // until deadline_, for one of those that are gone to come back
  std::optional<wire::JobEnded> verdict_;  // how the job has ended
  bool by_node_ = false;                   // a node has said so
  wire::JobEnded expected_;                // what is known of that before, for the deadline
  std::optional<Clock::time_point> deadline_;
};

}  // namespace troupe::actors
