// The roles of a node as typed actors: which messages each takes and answers. Roles that also exist on other
// nodes are reached as post_actor: a proxy behind the same type carries the Post over a link.
#pragma once

#include <chrono>
#include <map>
#include <vector>

#include <caf/replies_to.hpp>
#include <caf/typed_actor.hpp>

#include "actors/messages.hpp"

namespace troupe::actors {

using post_actor = caf::typed_actor<caf::reacts_to<Post>>;

// Where roles turn when something ends or fails.
using supervisor_actor =
    caf::typed_actor<caf::reacts_to<JobFailed>, caf::reacts_to<StepsDone>, caf::reacts_to<Publish>,
                     caf::reacts_to<scheduler::BeginView>, caf::reacts_to<scheduler::EveryoneLeft>,
                     caf::reacts_to<ReadyToLeave>, caf::reacts_to<PartEnded>>;

using loader_actor =
    post_actor::extend<caf::replies_to<OpenDataset>::with<DatasetOpened>, caf::reacts_to<PrefetchSamples>,
                       caf::replies_to<TakeSamples>::with<SlotSamples>, caf::reacts_to<Tick>>;
using trainer_actor = caf::typed_actor<caf::replies_to<SlotSamples>::with<SlotDone>,
                                       caf::replies_to<ShareWork>::with<WorkShared>>;
using checkpointer_actor = caf::typed_actor<caf::replies_to<SaveState>::with<Saved>>;
using state_writer_actor = caf::typed_actor<caf::replies_to<WriteState>::with<StateWritten>>;
using evaluator_actor =
    caf::typed_actor<caf::reacts_to<StepReport>, caf::replies_to<FlushReports>::with<ReportsFlushed>>;
using monitor_actor = caf::typed_actor<caf::reacts_to<StepReport>, caf::reacts_to<Validated>,
                                       caf::reacts_to<scheduler::BeginView>, caf::reacts_to<LedgerOfOthers>,
                                       caf::replies_to<FlushReports>::with<ReportsFlushed>>;
using membership_actor =
    post_actor::extend<caf::reacts_to<JoinCluster>, caf::reacts_to<PeerLinked>, caf::reacts_to<PeerUnlinked>,
                       caf::reacts_to<scheduler::Fenced>, caf::reacts_to<StepReached>,
                       caf::reacts_to<ViewStepReached>, caf::reacts_to<MemberIsStuck>,
                       caf::reacts_to<RingBroken>, caf::reacts_to<Tick>>;

struct TellMembership {  // to the member and the coordinator, once: to whom they report
  membership_actor membership;
};
using member_actor =
    post_actor::extend<caf::reacts_to<TellMembership>, caf::reacts_to<scheduler::BeginView>,
                       caf::reacts_to<scheduler::FenceMember>, caf::reacts_to<scheduler::LeaveView>,
                       caf::reacts_to<LeaveWanted>, caf::reacts_to<Reduced>, caf::reacts_to<ReduceFailed>,
                       caf::reacts_to<TotalFetched>, caf::reacts_to<Committed>, caf::reacts_to<SumCleared>,
                       caf::replies_to<InstallState>::with<Installed>,
                       caf::replies_to<InstallTotal>::with<Installed>, caf::reacts_to<Tick>>;

struct MeetMembers {  // to the coordinator, once: a handle or proxy for every rank
  std::map<scheduler::Rank, post_actor> members;
};
using coordinator_actor =
    post_actor::extend<caf::reacts_to<TellMembership>, caf::reacts_to<MeetMembers>,
                       caf::reacts_to<scheduler::BeginView>, caf::reacts_to<scheduler::EndLead>,
                       caf::reacts_to<StopWanted>, caf::reacts_to<Tick>>;

// Gives a node that lacks the state what it asks for.
using source_actor =
    post_actor::extend<caf::reacts_to<StateTaken>, caf::reacts_to<TotalKept>, caf::reacts_to<Tick>>;
// Takes it, on such a node.
using follower_actor =
    post_actor::extend<caf::reacts_to<scheduler::FollowFrom>, caf::reacts_to<scheduler::BeginView>,
                       caf::reacts_to<PeerUnlinked>, caf::reacts_to<StepsDone>, caf::reacts_to<Tick>>;

struct TakePart {  // to the aggregator, once: whom it works with
  std::vector<trainer_actor> trainers;
  member_actor member;
  membership_actor membership;
  evaluator_actor evaluator;
  checkpointer_actor checkpointer;
  source_actor source;
};
using aggregator_actor =
    caf::typed_actor<caf::replies_to<BuildEngine>::with<EngineBuilt>, caf::reacts_to<TakePart>,
                     caf::reacts_to<scheduler::BeginView>, caf::reacts_to<Feed>, caf::reacts_to<Reduce>,
                     caf::reacts_to<Commit>, caf::reacts_to<scheduler::ClearSum>, caf::reacts_to<StateWanted>,
                     caf::reacts_to<KeepTotals>, caf::replies_to<InstallState>::with<Installed>,
                     caf::replies_to<InstallTotal>::with<Installed>, caf::replies_to<SaveFinal>::with<Saved>>;

// Tokenises chunks of documents for a client that prepares a dataset.
using preparer_actor = caf::typed_actor<caf::reacts_to<LinkMessage>>;

using node_actor =
    supervisor_actor::extend<caf::reacts_to<LinkMessage>, caf::reacts_to<LinkUp>, caf::reacts_to<LinkDown>,
                             caf::reacts_to<StopWanted>, caf::reacts_to<Tick>>;

// Bounds of requests between roles. What computes may take long; what only answers may not.
inline constexpr std::chrono::minutes kWorkPatience{60};
inline constexpr std::chrono::seconds kReportPatience{10};  // of FlushReports: for what a slow disk has to do
inline constexpr std::chrono::minutes kSetupPatience{30};

}  // namespace troupe::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::TakePart)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::TellMembership)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::MeetMembers)
