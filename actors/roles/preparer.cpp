#include <chrono>
#include <map>
#include <optional>
#include <utility>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/guarded.hpp"
#include "actors/roles/roles.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"
#include "comm/messages.pb.h"
#include "data/prepare.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kSendAgain{100};

struct preparer_state {
  preparer_state() = default;
  static inline const char* name = "preparer";

  data::TokeniseWork work;
  std::optional<data::Tokenizer> tokenizer;
  std::optional<data::ChunkTokeniser> tokenise;  // none: `wrong` says why
  std::string wrong;
  std::map<uint64_t, wire::Envelope> unsent;  // by chunk; as many as the client has under way here, at most

  void begin(const wire::PrepareStart& start) {
    try {
      work = data::decode_work(start.work());
      tokenizer.emplace(start.tokenizer(), "the client's tokenizer");
      tokenise.emplace(work, *tokenizer);
    } catch (...) {
      wrong = current_failure().message;
    }
  }

  // Neither shard nor error where the shard is larger than a message may be.
  wire::Envelope answer(const wire::PrepareChunk& chunk) {
    wire::Envelope message;
    wire::PrepareShard& out = *message.mutable_prepare_shard();
    out.set_index(chunk.index());
    try {
      if (!tokenise) throw Error(ErrorKind::protocol, wrong);
      std::string shard = (*tokenise)(data::decode_chunk(chunk.documents()));
      if (shard.size() <= wire::kBulkFieldBytesMax) out.set_shard(std::move(shard));
    } catch (...) {
      out.set_error(wire_text(current_failure().message));
    }
    return message;
  }

  // False while there is no room for the answer on the link, as where the way to the client is slow: it is
  // kept for the next call.
  bool answered(comm::LinkHub& links, const std::string& client, const wire::PrepareChunk& chunk) {
    auto kept = unsent.extract(chunk.index());
    wire::Envelope message = kept.empty() ? answer(chunk) : std::move(kept.mapped());
    if (links.send(client, message) != comm::Sent::busy) return true;
    unsent.emplace(chunk.index(), std::move(message));
    return false;
  }
};
static_assert(!std::is_aggregate_v<preparer_state>);

preparer_actor::behavior_type preparer(preparer_actor::stateful_pointer<preparer_state> self,
                                       std::shared_ptr<comm::LinkHub> links, EnvelopePtr start) {
  use_exception_handler(self);
  self->state.begin(start->prepare_start());
  return {
      [self, links](const LinkMessage& message) {
        // Until there is room, or the link is down, which ends this loader; at the latest when the client has
        // waited for too long.
        if (!self->state.answered(*links, message.peer, message.envelope->prepare_chunk()))
          self->delayed_send(self, kSendAgain, message);
      },
  };
}

}  // namespace

preparer_actor spawn_preparer(caf::actor_system& system, std::shared_ptr<comm::LinkHub> links,
                              EnvelopePtr start) {
  return system.spawn<caf::detached>(preparer, std::move(links), std::move(start));
}

}  // namespace troupe::actors
