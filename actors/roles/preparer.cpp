#include <optional>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "actors/guarded.hpp"
#include "actors/roles.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"
#include "comm/messages.pb.h"
#include "data/prepare.hpp"

namespace troupe::actors {

namespace {

struct preparer_state {
  preparer_state() = default;
  static inline const char* name = "data_loader";

  data::TokeniseWork work;
  std::optional<data::Tokenizer> tokenizer;
  std::optional<data::ChunkTokeniser> tokenise;  // none: `wrong` says why
  std::string wrong;

  void begin(const wire::PrepareStart& start) {
    try {
      work = data::decode_work(start.work());
      tokenizer.emplace(start.tokenizer(), "the client's tokenizer");
      tokenise.emplace(work, *tokenizer);
    } catch (...) {
      wrong = current_failure().message;
    }
  }

  wire::Envelope answer(const wire::PrepareChunk& chunk) {
    wire::Envelope message;
    wire::PrepareShard& out = *message.mutable_prepare_shard();
    out.set_index(chunk.index());
    try {
      if (!tokenise) throw Error(ErrorKind::protocol, wrong);
      out.set_shard((*tokenise)(data::decode_chunk(chunk.documents())));
      if (out.shard().size() > wire::kBulkFieldBytesMax)
        throw error(ErrorKind::protocol, "the shard of chunk {} has {} bytes, more than a message holds",
                    chunk.index(), out.shard().size());
    } catch (...) {
      out.clear_shard();
      out.set_error(wire_text(current_failure().message));
    }
    return message;
  }
};
static_assert(!std::is_aggregate_v<preparer_state>);

preparer_actor::behavior_type preparer(preparer_actor::stateful_pointer<preparer_state> self,
                                       std::shared_ptr<comm::LinkHub> links, EnvelopePtr start) {
  use_exception_handler(self);
  self->state.begin(start->prepare_start());
  return {
      [self, links](const LinkMessage& message) {
        links->send(message.peer, self->state.answer(message.envelope->prepare_chunk()));
      },
  };
}

}  // namespace

preparer_actor spawn_preparer(caf::actor_system& system, std::shared_ptr<comm::LinkHub> links,
                              EnvelopePtr start) {
  return system.spawn<caf::detached>(preparer, std::move(links), std::move(start));
}

}  // namespace troupe::actors
