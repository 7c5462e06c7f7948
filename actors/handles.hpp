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
    caf::typed_actor<caf::reacts_to<JobFailed>, caf::reacts_to<StepsDone>, caf::reacts_to<Publish>>;

using loader_actor =
    caf::typed_actor<caf::replies_to<OpenDataset>::with<DatasetOpened>, caf::reacts_to<PrefetchSamples>,
                     caf::replies_to<TakeSamples>::with<SlotSamples>>;
using trainer_actor = caf::typed_actor<caf::replies_to<SlotSamples>::with<SlotDone>,
                                       caf::replies_to<ShareWork>::with<WorkShared>>;
using checkpointer_actor = caf::typed_actor<caf::replies_to<SaveState>::with<Saved>>;
using evaluator_actor = caf::typed_actor<caf::reacts_to<StepReport>>;
using monitor_actor =
    caf::typed_actor<caf::reacts_to<StepReport>, caf::reacts_to<Validated>, caf::reacts_to<ViewBegins>>;
using member_actor = post_actor::extend<caf::reacts_to<ViewBegins>, caf::reacts_to<Reduced>,
                                        caf::reacts_to<Committed>, caf::reacts_to<Tick>>;

struct MeetMembers {  // to the coordinator, once: a handle or proxy for every rank
  std::map<scheduler::Rank, post_actor> members;
};
using coordinator_actor =
    post_actor::extend<caf::reacts_to<MeetMembers>, caf::reacts_to<ViewBegins>, caf::reacts_to<StopWanted>>;
using membership_actor = post_actor::extend<caf::reacts_to<JoinCluster>, caf::reacts_to<Tick>>;

struct TakePart {  // to the aggregator, once: whom it works with
  std::vector<trainer_actor> trainers;
  member_actor member;
  evaluator_actor evaluator;
  checkpointer_actor checkpointer;
};
using aggregator_actor =
    caf::typed_actor<caf::replies_to<BuildEngine>::with<EngineBuilt>, caf::reacts_to<TakePart>,
                     caf::replies_to<OpenRing>::with<RingOpened>, caf::reacts_to<Reduce>,
                     caf::reacts_to<Commit>, caf::replies_to<SaveFinal>::with<Saved>>;

// Tokenises chunks of documents for a client that prepares a dataset.
using preparer_actor = caf::typed_actor<caf::reacts_to<LinkMessage>>;

using node_actor =
    supervisor_actor::extend<caf::reacts_to<LinkMessage>, caf::reacts_to<LinkUp>, caf::reacts_to<LinkDown>,
                             caf::reacts_to<StopWanted>, caf::reacts_to<Tick>>;

// Bounds of requests between roles. What computes may take long; what only answers may not.
inline constexpr std::chrono::minutes kWorkPatience{60};
inline constexpr std::chrono::minutes kSetupPatience{30};

}  // namespace troupe::actors

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::TakePart)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(troupe::actors::MeetMembers)
