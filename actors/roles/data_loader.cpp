#include <algorithm>
#include <fstream>
#include <optional>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include "actors/clock.hpp"
#include "actors/engines/engine_setup.hpp"
#include "actors/guarded.hpp"
#include "actors/roles/dataset_repair.hpp"
#include "actors/roles/roles.hpp"
#include "actors/roles/samples_ahead.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"
#include "data/manifest.hpp"
#include "data/repair.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kTick{100};

struct loader_state {
  loader_state() = default;
  static inline const char* name = "data_loader";

  using Self = loader_actor::stateful_pointer<loader_state>;

  RoleSetup setup;
  std::map<scheduler::Rank, post_actor> peers;
  std::shared_ptr<const data::Dataset> dataset;
  std::optional<SamplesAhead> ahead;

  std::optional<DatasetRepair> repair;  // while the folder is not whole
  caf::typed_response_promise<DatasetOpened> opened;
  std::vector<std::string> served;  // names of files that others may have

  // --- opening ---

  const std::string& folder() const { return setup.context->data_folder; }
  bool from_folder() const {
    return setup.context->job.source == config::DataSource::folder && !folder().empty();
  }

  DatasetOpened open() {
    dataset = open_dataset(setup.context->job, folder());
    if (from_folder()) served = data::file_names(folder());
    return {dataset};
  }

  caf::result<DatasetOpened> open_or_repair(Self self) {
    std::string problem;
    try {
      return open();
    } catch (const Error& why) {
      const bool of_files = why.kind() == ErrorKind::file || why.kind() == ErrorKind::corrupt;
      if (!of_files || !from_folder() || peers.empty()) throw;
      problem = why.what();
    }
    std::vector<data::FileEntry> lacking = data::lacking_files(folder());
    if (lacking.empty()) throw Error(ErrorKind::corrupt, problem);
    spdlog::warn("{}; asks the other nodes for it", problem);
    DatasetRepair::Options options{folder(), setup.context->node(), {}, setup.context->awaited, problem};
    for (const auto& [rank, handle] : peers) options.others[rank] = setup.context->name_of(rank);
    repair.emplace(std::move(options), std::move(lacking), now_us());
    serve_what_is_here();
    opened = self->make_response_promise<DatasetOpened>();
    self->send(self, Tick{});
    return opened;
  }

  void go_on_with_repair(Self self) {
    serve_what_is_here();
    if (repair->whole()) {
      repair.reset();
      opened.deliver(open());
      return;
    }
    for (const DatasetRepair::Question& question : repair->due(now_us())) {
      wire::Envelope message = envelope(*setup.context);
      message.mutable_fetch()->set_kind(wire::BLOB_DATA);
      message.mutable_fetch()->set_index(question.index);
      message.mutable_fetch()->set_name(question.file);
      self->send(peers.at(question.giver), Post{setup.context->rank(), share(std::move(message))});
    }
  }

  // Until the manifest is there, nobody knows what else is.
  void serve_what_is_here() {
    if (served.empty() && !repair->lacks(std::string(data::kManifestName)))
      served = data::file_names(folder());
  }

  void on_piece(Self self, scheduler::Rank from, const wire::Piece& piece) {
    if (!repair) return;
    repair->take(from, piece, now_us());
    go_on_with_repair(self);
  }

  void tick(Self self) {
    if (!repair) return;
    go_on_with_repair(self);
    self->delayed_send(self, kTick, Tick{});
  }

  // --- giving ---

  void on_fetch(Self self, scheduler::Rank from, const wire::Fetch& wanted) {
    wire::Envelope message = envelope(*setup.context);
    wire::Piece& piece = *message.mutable_piece();
    piece.set_kind(wire::BLOB_DATA);
    piece.set_index(wanted.index());
    piece.set_name(wanted.name());
    if (repair && repair->lacks(wanted.name()))
      piece.set_absent("it lacks it too");
    else if (!served.empty())
      fill(piece);  // two nodes may each lack what the other has
    self->send(peers.at(from), Post{setup.context->rank(), share(std::move(message))});
  }

  void fill(wire::Piece& piece) const {
    if (std::find(served.begin(), served.end(), piece.name()) == served.end())
      return piece.set_absent("its dataset has no such file");
    std::ifstream in(folder() + "/" + piece.name(), std::ios::binary | std::ios::ate);
    const auto bytes = in.tellg();
    std::string data(wire::kPieceBytes, '\0');
    in.seekg(std::streamoff(piece.index()) * std::streamoff(wire::kPieceBytes));
    in.read(data.data(), std::streamsize(data.size()));
    data.resize(size_t(std::max<std::streamsize>(0, in.gcount())));
    if (bytes <= 0 || data.empty()) return piece.set_absent("its copy cannot be read any more");
    piece.set_blob_bytes(uint64_t(bytes));
    piece.set_checksum(checksum64(data.data(), data.size()));
    piece.set_data(std::move(data));
  }

  // --- samples ---

  std::shared_ptr<const Batch> make(int64_t step, uint32_t slot) const {
    const config::JobConfig& job = setup.context->job;
    const scheduler::SlotPlan plan = setup.context->plan();
    if (!plan.is_evaluation(slot))
      return std::make_shared<const Batch>(
          dataset->slot_batch(uint64_t(job.seed), uint64_t(step), slot, plan.training));
    // Held-out packs, spread evenly over the split; with more slots than packs the rest are empty.
    const uint64_t packs = dataset->packs(data::Split::valid), index = slot - plan.training;
    if (packs < plan.evaluation && index >= packs) return std::make_shared<const Batch>();
    const uint64_t pack = packs < plan.evaluation ? index : index * packs / plan.evaluation;
    return std::make_shared<const Batch>(dataset->batch_of_pack(data::Split::valid, pack));
  }
};
static_assert(!std::is_aggregate_v<loader_state>);

loader_actor::behavior_type loader(loader_actor::stateful_pointer<loader_state> self, RoleSetup setup,
                                   std::map<scheduler::Rank, post_actor> peers) {
  use_exception_handler(self);
  self->state.setup = std::move(setup);
  self->state.peers = std::move(peers);
  // A member asks for a step's slots of twice its workers at most.
  self->state.ahead.emplace(2 * size_t{self->state.setup.context->workers},
                            [self](int64_t step, uint32_t slot) { return self->state.make(step, slot); });
  const supervisor_actor& supervisor = self->state.setup.supervisor;
  return {
      [self, supervisor](const Post& post) {
        if (!same_job(*self->state.setup.context, *post.envelope) || !self->state.peers.contains(post.from))
          return;
        guarded(self, supervisor, [&] {
          if (post.envelope->has_fetch()) self->state.on_fetch(self, post.from, post.envelope->fetch());
          if (post.envelope->has_piece()) self->state.on_piece(self, post.from, post.envelope->piece());
        });
      },
      [self, supervisor](OpenDataset) {
        return guarded_answer<DatasetOpened>(self, supervisor,
                                             [&] { return self->state.open_or_repair(self); });
      },
      [self, supervisor](const PrefetchSamples& wanted) {
        guarded(self, supervisor, [&] { self->state.ahead->prefetch(wanted); });
      },
      [self, supervisor](const TakeSamples& wanted) {
        return guarded_answer<SlotSamples>(self, supervisor,
                                           [&] { return self->state.ahead->take(wanted.step, wanted.slot); });
      },
      [self, supervisor](Tick) { guarded(self, supervisor, [&] { self->state.tick(self); }); },
  };
}

}  // namespace

loader_actor spawn_loader(caf::actor_system& system, RoleSetup setup,
                          std::map<scheduler::Rank, post_actor> peers) {
  return system.spawn<caf::detached>(loader, std::move(setup), std::move(peers));
}

}  // namespace troupe::actors
