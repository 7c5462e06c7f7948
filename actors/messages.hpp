// What the actors of a node say to one another. Plain structs that stay inside the process: anything big
// travels as a shared_ptr to something immutable or to something whose owner is said here. What crosses
// between nodes is a wire::Envelope, carried in a Post.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <caf/allowed_unsafe_message_type.hpp>

#include "kernels/base/batch.hpp"
#include "kernels/base/error.hpp"
#include "scheduler/member.hpp"
#include "scheduler/membership.hpp"

namespace troupe::wire {
class Envelope;
}
namespace troupe::data {
class Dataset;
}
namespace troupe::model {
struct TrainState;
}

namespace troupe::actors {

class TrainEngine;
class SharedWork;
struct StepOutcome;

using EnvelopePtr = std::shared_ptr<const wire::Envelope>;

struct Tick {};

// --- between nodes ---
struct Post {  // one message of the protocol; `from` is the member who sent it
  scheduler::Rank from = 0;
  EnvelopePtr envelope;
};
struct LinkMessage {  // as it came from a link
  std::string peer;
  bool client = false;
  EnvelopePtr envelope;
};
struct LinkUp {
  std::string peer;
  bool client = false;
};
struct LinkDown {
  std::string peer;
  bool client = false;
  bool was_up = false;
  bool replaced = false;  // the peer knows a newer process of this node's name
  bool closed = false;    // by the peer, which was not silent before
  std::string why;
};

// --- the life of a job ---
struct JobFailed {
  ErrorKind kind = ErrorKind::protocol;
  std::string message;
  int64_t suspect = -1;  // rank of the node that is to blame, or -1
  bool of_all = false;   // the others may not go on either
};
struct StopWanted {  // finish the step, write a checkpoint, end; `now`: end without
  std::string why;
  bool now = false;
};
struct StepsDone {  // all members have committed this step, and it is the last
  int64_t step = 0;
};
struct Publish {  // to every client
  EnvelopePtr envelope;
};
struct PartEnded {  // this node is no member any more, as it was asked: its part of the job is over
};

// --- views ---
struct PeerLinked {  // to membership
  scheduler::Rank peer = 0;
};
struct PeerUnlinked {
  scheduler::Rank peer = 0;
  std::string why;
};
struct LeaveWanted {};   // to the member: no slot of the next step
struct ReadyToLeave {};  // to the node: its part of the step is done, and others may go on without it
struct StepReached {     // member to membership
  int64_t step = 0;
  bool wants_to_leave = false;
};
struct ViewStepReached {  // coordinator to membership
  int64_t step = 0;
};
struct MemberIsStuck {  // coordinator to membership
  scheduler::Rank rank = 0;
};
struct RingBroken {  // aggregator to membership
  scheduler::Ballot ballot;
  scheduler::Rank peer = 0;
  std::string why;
};

// --- setting up ---
struct OpenDataset {};
struct DatasetOpened {
  std::shared_ptr<const data::Dataset> dataset;
};
struct BuildEngine {
  std::shared_ptr<const data::Dataset> dataset;
};
struct EngineBuilt {
  std::shared_ptr<TrainEngine> engine;
  std::string broken;  // why no job may begin at step 0 here; empty: it may
};
struct JoinCluster {  // to membership: this node is ready
  std::string fingerprint_text;
  int64_t step = 0;
  std::vector<scheduler::Rank> linked;
  std::string broken;  // of EngineBuilt
};

// --- a step ---
struct PrefetchSamples {
  int64_t step = 0;
  std::vector<uint32_t> slots;
};
struct TakeSamples {
  int64_t step = 0;
  uint32_t slot = 0;
};
struct SlotSamples {
  int64_t step = 0;
  uint32_t slot = 0;
  std::shared_ptr<const Batch> batch;
};
struct SlotDone {
  uint32_t worker = 0;
  int64_t step = 0;
  uint32_t slot = 0;
  double seconds = 0;
};
struct ShareWork {  // take ranges until none is left
  std::shared_ptr<SharedWork> work;
};
struct WorkShared {};
struct Feed {
  scheduler::Seal seal;
};
struct Reduce {
  scheduler::Seal seal;
};
struct Reduced {
  scheduler::Fence fence;
};
struct ReduceFailed {
  scheduler::Fence fence;
};
struct TotalFetched {  // R of the fence's step came round the ring, or did not
  scheduler::Fence fence;
  bool here = false;
};
struct SumCleared {};
struct Commit {
  int64_t step = 0;
};
struct Committed {
  int64_t step = 0;
  std::string digest;
};
struct StepReport {
  std::shared_ptr<const StepOutcome> outcome;
  scheduler::Seal seal;  // who computed what
  std::string chain;     // of the state after it
};
struct Validated {  // the evaluator's verdict on one evaluation
  int64_t step = 0;
  double loss = 0;  // mean a target token, without smoothing
  double accuracy = 0;
  bool best = false;
  int64_t best_step = 0;
};

// --- a state from a peer ---
struct StateWanted {  // source to aggregator: x(step), as soon as it is there
  int64_t step = 0;
};
struct StateTaken {
  int64_t wanted = 0;
  std::shared_ptr<const model::TrainState> state;  // empty: the state is past that step
  int64_t step = 0;                                // where it is
};
struct WriteState {  // source to state writer
  std::shared_ptr<const model::TrainState> state;
};
struct StateWritten {
  int64_t step = 0;
  std::string problem;  // empty: its file is there
};
struct KeepTotals {  // source to aggregator: every R from now on, or no longer
  bool keep = false;
};
struct TotalKept {
  int64_t step = 0;
  std::shared_ptr<const std::vector<std::byte>> bytes;
};
struct InstallState {  // follower to member to aggregator: a checkpoint file
  std::string path;
};
struct InstallTotal {  // R of the state's step: commit it
  std::shared_ptr<const std::vector<std::byte>> bytes;
};
struct Installed {
  bool done = false;
  bool busy = false;  // not done: a slot still runs
  int64_t step = 0;
  std::string digest;
};

struct FlushReports {
};  // evaluator and monitor: answer when every step so far is in the ledger and has been told
struct ReportsFlushed {};
struct LedgerOfOthers {  // follower to monitor: a file with what this node's own ledger may lack; monitor
                         // removes it
  std::string path;
};

// --- checkpoints ---
struct SaveState {  // the snapshot belongs to the checkpointer
  std::shared_ptr<const model::TrainState> state;
  bool last = false;  // must be written; the others may fail, as when the disk is full
};
struct SaveFinal {  // to the aggregator: the digest of the weights as they are, and a checkpoint, once the
                    // steps before it have been reported
  bool write = true;
  int64_t step = 0;  // once the state is there: a leader may still be catching up with its members
};
struct Saved {
  int64_t step = 0;
  std::string path;            // empty: this node keeps no checkpoints
  std::string weights_digest;  // SHA-256, hex
};

}  // namespace troupe::actors

#define TROUPE_LOCAL_MESSAGE(name) CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::name)
TROUPE_LOCAL_MESSAGE(Tick)
TROUPE_LOCAL_MESSAGE(Post)
TROUPE_LOCAL_MESSAGE(LinkMessage)
TROUPE_LOCAL_MESSAGE(LinkUp)
TROUPE_LOCAL_MESSAGE(LinkDown)
TROUPE_LOCAL_MESSAGE(JobFailed)
TROUPE_LOCAL_MESSAGE(StopWanted)
TROUPE_LOCAL_MESSAGE(StepsDone)
TROUPE_LOCAL_MESSAGE(Publish)
TROUPE_LOCAL_MESSAGE(PartEnded)
TROUPE_LOCAL_MESSAGE(PeerLinked)
TROUPE_LOCAL_MESSAGE(PeerUnlinked)
TROUPE_LOCAL_MESSAGE(LeaveWanted)
TROUPE_LOCAL_MESSAGE(ReadyToLeave)
TROUPE_LOCAL_MESSAGE(StepReached)
TROUPE_LOCAL_MESSAGE(ViewStepReached)
TROUPE_LOCAL_MESSAGE(MemberIsStuck)
TROUPE_LOCAL_MESSAGE(RingBroken)
TROUPE_LOCAL_MESSAGE(OpenDataset)
TROUPE_LOCAL_MESSAGE(DatasetOpened)
TROUPE_LOCAL_MESSAGE(BuildEngine)
TROUPE_LOCAL_MESSAGE(EngineBuilt)
TROUPE_LOCAL_MESSAGE(JoinCluster)
TROUPE_LOCAL_MESSAGE(PrefetchSamples)
TROUPE_LOCAL_MESSAGE(TakeSamples)
TROUPE_LOCAL_MESSAGE(SlotSamples)
TROUPE_LOCAL_MESSAGE(SlotDone)
TROUPE_LOCAL_MESSAGE(ShareWork)
TROUPE_LOCAL_MESSAGE(WorkShared)
TROUPE_LOCAL_MESSAGE(Feed)
TROUPE_LOCAL_MESSAGE(Reduce)
TROUPE_LOCAL_MESSAGE(Reduced)
TROUPE_LOCAL_MESSAGE(ReduceFailed)
TROUPE_LOCAL_MESSAGE(TotalFetched)
TROUPE_LOCAL_MESSAGE(SumCleared)
TROUPE_LOCAL_MESSAGE(Commit)
TROUPE_LOCAL_MESSAGE(Committed)
TROUPE_LOCAL_MESSAGE(StepReport)
TROUPE_LOCAL_MESSAGE(Validated)
TROUPE_LOCAL_MESSAGE(StateWanted)
TROUPE_LOCAL_MESSAGE(StateTaken)
TROUPE_LOCAL_MESSAGE(WriteState)
TROUPE_LOCAL_MESSAGE(StateWritten)
TROUPE_LOCAL_MESSAGE(KeepTotals)
TROUPE_LOCAL_MESSAGE(TotalKept)
TROUPE_LOCAL_MESSAGE(InstallState)
TROUPE_LOCAL_MESSAGE(InstallTotal)
TROUPE_LOCAL_MESSAGE(Installed)
TROUPE_LOCAL_MESSAGE(FlushReports)
TROUPE_LOCAL_MESSAGE(ReportsFlushed)
TROUPE_LOCAL_MESSAGE(LedgerOfOthers)
TROUPE_LOCAL_MESSAGE(SaveState)
TROUPE_LOCAL_MESSAGE(SaveFinal)
TROUPE_LOCAL_MESSAGE(Saved)
#undef TROUPE_LOCAL_MESSAGE

// Decisions of scheduler/ that one role hands on to another as they are.
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::scheduler::BeginView)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::scheduler::LeaveView)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::scheduler::EndLead)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::scheduler::FenceMember)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::scheduler::Fenced)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::scheduler::FollowFrom)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::scheduler::ClearSum)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::scheduler::EveryoneLeft)
