#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <list>
#include <optional>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include "actors/blob_assembly.hpp"
#include "actors/clock.hpp"
#include "actors/engine_setup.hpp"
#include "actors/guarded.hpp"
#include "actors/roles.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"
#include "data/repair.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::actors {

namespace {

constexpr size_t kSamplesAheadMax = 64;  // slots whose samples are kept; the oldest go first
constexpr std::chrono::milliseconds kTick{100};
constexpr scheduler::Microseconds kGiversPatienceUs = 20'000'000;  // for anyone to have a file

struct loader_state {
  loader_state() = default;
  static inline const char* name = "data_loader";

  using Self = loader_actor::stateful_pointer<loader_state>;

  RoleSetup setup;
  std::map<scheduler::Rank, post_actor> peers;
  std::shared_ptr<const data::Dataset> dataset;
  std::list<SlotSamples> ahead;

  // While the folder is not whole:
  std::vector<data::FileEntry> lacking;  // the first is being taken from others
  BlobAssembly blob;
  std::map<scheduler::Rank, std::string> absent;  // who does not have it, and why
  std::vector<scheduler::Rank> one_by_one;        // whom to ask alone, when several together gave nonsense
  std::string problem;                            // why the folder could not be opened
  scheduler::Microseconds heard_us = 0;
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
    try {
      return open();
    } catch (const Error& why) {
      const bool of_files = why.kind() == ErrorKind::file || why.kind() == ErrorKind::corrupt;
      if (!of_files || !from_folder() || peers.empty()) throw;
      lacking = data::lacking_files(folder());
      if (lacking.empty()) throw;
      problem = why.what();
    }
    spdlog::warn("{}; asks the other nodes for it", problem);
    opened = self->make_response_promise<DatasetOpened>();
    begin_file(self);
    self->delayed_send(self, kTick, Tick{});
    return opened;
  }

  std::string part_path() const {
    return fmt::format("{}/.{}.{}.part", folder(), lacking.front().name, setup.context->node());
  }

  void begin_file(Self self) {
    std::error_code failed;
    std::filesystem::create_directories(folder(), failed);
    if (failed)
      throw error(ErrorKind::file, "{}; and {} cannot be made: {}", problem, folder(), failed.message());
    if (!lacking.front().sha256.empty() && lacking.front().bytes == 0) {  // nobody is needed for that
      std::ofstream(part_path(), std::ios::trunc);
      return finish_file(self);
    }
    absent.clear();
    one_by_one.clear();
    heard_us = now_us();
    std::vector<scheduler::Rank> all;
    for (const auto& [rank, handle] : peers) all.push_back(rank);
    blob.begin(std::move(all), part_path());
    ask(self);
  }

  void ask(Self self) {
    for (const BlobAssembly::Question& question : blob.due(now_us())) {
      wire::Envelope message = envelope(*setup.context);
      message.mutable_fetch()->set_kind(wire::BLOB_DATA);
      message.mutable_fetch()->set_index(question.index);
      message.mutable_fetch()->set_name(lacking.front().name);
      self->send(peers.at(question.giver), Post{setup.context->rank(), share(std::move(message))});
    }
  }

  void on_piece(Self self, scheduler::Rank from, const wire::Piece& piece) {
    if (lacking.empty() || piece.name() != lacking.front().name || !blob.has_giver(from)) return;
    blob.hear(from, now_us());
    if (!piece.absent().empty()) {
      absent[from] = piece.absent();
      blob.drop_giver(from);
      return give_up_if_due(self);
    }
    if (piece.blob_bytes() == 0) return;  // it is not that far itself
    heard_us = now_us();
    blob.take(from, piece);
    if (blob.whole())
      finish_file(self);
    else
      ask(self);
  }

  void finish_file(Self self) {
    const std::string file = lacking.front().name;
    if (!data::adopt_file(folder(), lacking.front(), part_path())) {
      if (one_by_one.empty()) one_by_one = blob.givers();
      absent[one_by_one.back()] = "what it gave is damaged";
      one_by_one.pop_back();
      blob.begin(one_by_one.empty() ? std::vector<scheduler::Rank>{} : std::vector{one_by_one.back()},
                 part_path());
      return one_by_one.empty() ? give_up(self) : ask(self);
    }
    spdlog::warn("{}/{} was taken from another node", folder(), file);
    // A manifest says what else there should be.
    const bool manifest = lacking.front().sha256.empty();
    lacking = manifest ? data::lacking_files(folder())
                       : std::vector<data::FileEntry>(lacking.begin() + 1, lacking.end());
    if (!lacking.empty()) return begin_file(self);
    blob.end();
    opened.deliver(open());
  }

  // Everybody who is to be there has said that they have not got it, or nobody says anything.
  void give_up_if_due(Self self) {
    const JobContext& context = *setup.context;
    bool all = true;
    for (const auto& [rank, handle] : peers) {
      const bool awaited =
          std::find(context.awaited.begin(), context.awaited.end(), rank) != context.awaited.end();
      all = all && (!awaited || absent.contains(rank));
    }
    if (all || now_us() - heard_us > kGiversPatienceUs) give_up(self);
  }

  void give_up(Self self) {
    std::string who;
    for (const auto& [rank, why] : absent)
      who += fmt::format("{}{}: {}", who.empty() ? "" : "; ", setup.context->name_of(rank), why);
    const std::string message = fmt::format("{}. No other node has a whole {} to give ({})", problem,
                                            lacking.front().name, who.empty() ? "none has answered" : who);
    std::error_code none;
    std::filesystem::remove(part_path(), none);
    lacking.clear();
    blob.end();
    self->send(setup.supervisor, JobFailed{ErrorKind::file, message, -1});
  }

  void tick(Self self) {
    if (lacking.empty()) return;
    ask(self);
    give_up_if_due(self);
    self->delayed_send(self, kTick, Tick{});
  }

  // --- giving ---

  void on_fetch(Self self, scheduler::Rank from, const wire::Fetch& wanted) {
    wire::Envelope message = envelope(*setup.context);
    wire::Piece& piece = *message.mutable_piece();
    piece.set_kind(wire::BLOB_DATA);
    piece.set_index(wanted.index());
    piece.set_name(wanted.name());
    if (dataset)
      fill(piece);
    else if (std::any_of(lacking.begin(), lacking.end(),
                         [&](const auto& f) { return f.name == wanted.name(); }))
      piece.set_absent("it lacks it too");
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

  void prefetch(const PrefetchSamples& wanted) {
    for (uint32_t slot : wanted.slots) {
      const bool here = std::any_of(ahead.begin(), ahead.end(),
                                    [&](const auto& s) { return s.step == wanted.step && s.slot == slot; });
      if (here) continue;
      ahead.push_back({wanted.step, slot, make(wanted.step, slot)});
      if (ahead.size() > kSamplesAheadMax) ahead.pop_front();
    }
  }

  SlotSamples take(const TakeSamples& wanted) {
    for (auto it = ahead.begin(); it != ahead.end(); ++it) {
      if (it->step != wanted.step || it->slot != wanted.slot) continue;
      SlotSamples found = std::move(*it);
      ahead.erase(it);
      return found;
    }
    return {wanted.step, wanted.slot, make(wanted.step, wanted.slot)};
  }
};
static_assert(!std::is_aggregate_v<loader_state>);

loader_actor::behavior_type loader(loader_actor::stateful_pointer<loader_state> self, RoleSetup setup,
                                   std::map<scheduler::Rank, post_actor> peers) {
  use_exception_handler(self);
  self->state.setup = std::move(setup);
  self->state.peers = std::move(peers);
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
        guarded(self, supervisor, [&] { self->state.prefetch(wanted); });
      },
      [self, supervisor](const TakeSamples& wanted) {
        return guarded_answer<SlotSamples>(self, supervisor, [&] { return self->state.take(wanted); });
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
