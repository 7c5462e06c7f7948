#include <filesystem>
#include <fstream>

#include <caf/actor_system.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include "actors/clock.hpp"
#include "actors/guarded.hpp"
#include "actors/roles.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::actors {

namespace {

constexpr std::chrono::milliseconds kTick{50};
constexpr scheduler::Microseconds kAskAgainUs = 1'000'000;        // an unanswered question
constexpr scheduler::Microseconds kSourcePatienceUs = 5'000'000;  // without an answer: another source
constexpr size_t kAskedAtOnce = 4;                                // pieces
constexpr uint64_t kBlobBytesMax = uint64_t{1} << 40;

// One blob that is being put together from its pieces, in a file or in memory.
class Assembly {
 public:
  wire::BlobKind kind = wire::BLOB_UNSPECIFIED;  // unspecified: none is wanted
  int64_t step = -1;

  void begin(wire::BlobKind new_kind, int64_t new_step) {
    kind = new_kind;
    step = new_step;
    size_.reset();
    here_.clear();
    asked_.clear();
    bytes_.clear();
  }
  void end() { begin(wire::BLOB_UNSPECIFIED, -1); }

  // Which pieces to ask for now.
  std::vector<uint32_t> due(scheduler::Microseconds now) {
    std::vector<uint32_t> due;
    const uint32_t count = size_ ? pieces() : 1;
    size_t under_way = 0;
    for (uint32_t i = 0; i < count && under_way < kAskedAtOnce; ++i) {
      if (size_ && here_[i]) continue;
      ++under_way;
      const auto asked = asked_.find(i);
      if (asked != asked_.end() && now - asked->second < kAskAgainUs) continue;
      asked_[i] = now;
      due.push_back(i);
    }
    return due;
  }

  // Returns false when the piece is not what it should be.
  bool take(const wire::Piece& piece, const std::filesystem::path& path) {
    if (checksum64(piece.data().data(), piece.data().size()) != piece.checksum()) return false;
    if (!size_) {
      if (piece.blob_bytes() == 0 || piece.blob_bytes() > kBlobBytesMax) return false;
      size_ = piece.blob_bytes();
      here_.assign(pieces(), false);
      if (kind == wire::BLOB_STATE) std::ofstream(path, std::ios::binary | std::ios::trunc);
    }
    const uint64_t at = uint64_t(piece.index()) * wire::kBulkFieldBytesMax;
    if (piece.index() >= here_.size() || piece.blob_bytes() != *size_ ||
        piece.data().size() != std::min<uint64_t>(wire::kBulkFieldBytesMax, *size_ - at))
      return false;
    if (here_[piece.index()]) return true;
    if (kind == wire::BLOB_STATE) {
      std::fstream out(path, std::ios::binary | std::ios::in | std::ios::out);
      out.seekp(std::streamoff(at));
      if (!out.write(piece.data().data(), std::streamsize(piece.data().size())) || !out.flush())
        throw error(ErrorKind::file, "cannot write {}", path.string());
    } else {
      bytes_.resize(size_t(*size_));
      std::memcpy(bytes_.data() + at, piece.data().data(), piece.data().size());
    }
    here_[piece.index()] = true;
    asked_.erase(piece.index());
    return true;
  }
  bool whole() const {
    return kind != wire::BLOB_UNSPECIFIED && size_ &&
           std::find(here_.begin(), here_.end(), false) == here_.end();
  }
  std::vector<std::byte> take_bytes() { return std::move(bytes_); }

 private:
  uint32_t pieces() const {
    return uint32_t((*size_ + wire::kBulkFieldBytesMax - 1) / wire::kBulkFieldBytesMax);
  }

  std::optional<uint64_t> size_;
  std::vector<bool> here_;
  std::map<uint32_t, scheduler::Microseconds> asked_;
  std::vector<std::byte> bytes_;
};

struct follower_state {
  follower_state() = default;
  static inline const char* name = "follower";
  using Self = follower_actor::stateful_pointer<follower_state>;

  RoleSetup setup;
  std::map<scheduler::Rank, post_actor> peers;
  member_actor member;
  std::vector<scheduler::Rank> sources;  // who has the state, as far as the leader knows
  std::optional<scheduler::Rank> source;
  Assembly blob;
  int64_t leader_step = 0;
  int refusals = 0;  // in a row, of the step that was asked for
  bool installing = false;
  std::shared_ptr<const std::vector<std::byte>> ready;  // a whole total
  scheduler::Microseconds heard_us = 0;

  std::filesystem::path path() const {
    return std::filesystem::path(setup.context->out_folder) / "transfer" /
           fmt::format("state-for-{}.part", setup.context->node());
  }

  void follow(Self self, const scheduler::FollowFrom& from) {
    sources = from.sources;
    std::erase(sources, setup.context->rank());
    leader_step = from.step;
    if (source || sources.empty()) return;
    begin(self);
  }

  // With the state of some source as it is now; if the source is past that step already when it hears of it,
  // with a later one.
  void begin(Self self) {
    if (sources.empty()) return;
    source = sources[size_t(now_us() / 1000) % sources.size()];
    heard_us = now_us();
    std::filesystem::create_directories(path().parent_path());
    spdlog::info("takes the state from {}", setup.context->name_of(*source));
    refusals = 0;
    want_state(self, leader_step);
  }
  void want_state(Self self, int64_t step) {
    blob.begin(wire::BLOB_STATE, std::min(step, setup.context->job.steps));
    ask(self);
  }

  void ask(Self self) {
    if (!source || blob.kind == wire::BLOB_UNSPECIFIED || installing) return;
    for (const uint32_t index : blob.due(now_us())) {
      wire::Envelope message = envelope(*setup.context, {{}, blob.step});
      message.mutable_fetch()->set_kind(blob.kind);
      message.mutable_fetch()->set_index(index);
      self->send(peers.at(*source), Post{setup.context->rank(), share(std::move(message))});
    }
  }

  void on_piece(Self self, scheduler::Rank from, int64_t step, const wire::Piece& piece) {
    if (!source || from != *source || piece.kind() != blob.kind || step != blob.step || installing) return;
    heard_us = now_us();
    if (!piece.absent().empty()) return refused(self, piece);
    if (piece.blob_bytes() == 0) return;    // not yet
    if (!blob.take(piece, path())) return;  // it is asked for again
    if (blob.whole()) return install(self);
    ask(self);
  }

  void refused(Self self, const wire::Piece& piece) {
    const int64_t later = piece.sender_step() + (int64_t{1} << std::min(refusals++, 12)) - 1;
    want_state(self, piece.offered_step() >= 0 ? piece.offered_step() : std::max(later, leader_step));
  }

  void install(Self self) {
    installing = true;
    const auto done = [this, self](const Installed& installed) { on_installed(self, installed); };
    const auto silent = [this](const caf::error&) { stop(); };
    if (blob.kind == wire::BLOB_STATE) {
      self->request(member, kWorkPatience, InstallState{path().string()}).then(done, silent);
    } else {
      if (!ready) ready = std::make_shared<const std::vector<std::byte>>(blob.take_bytes());
      self->request(member, kWorkPatience, InstallTotal{ready}).then(done, silent);
    }
  }

  void on_installed(Self self, const Installed& installed) {
    installing = false;
    if (!source) return remove_file();  // a member by now
    if (installed.busy) return;         // tried again
    const bool right = installed.step == blob.step + (blob.kind == wire::BLOB_TOTAL ? 1 : 0);
    if (!installed.done || !right) return stop();  // from the start, at the leader's next word
    if (blob.kind == wire::BLOB_STATE) remove_file();
    ready.reset();
    blob.begin(wire::BLOB_TOTAL, installed.step);
    ask(self);
  }

  void remove_file() {
    std::error_code none;
    std::filesystem::remove(path(), none);
  }

  void stop() {
    source.reset();
    ready.reset();
    blob.end();
    installing = false;
    remove_file();
  }

  void tick(Self self) {
    if (source && !installing && now_us() - heard_us > kSourcePatienceUs) stop();
    if (source && !installing && blob.whole()) install(self);
    ask(self);
  }
};
static_assert(!std::is_aggregate_v<follower_state>);

follower_actor::behavior_type follower(follower_actor::stateful_pointer<follower_state> self, RoleSetup setup,
                                       std::map<scheduler::Rank, post_actor> sources, member_actor member) {
  use_exception_handler(self);
  self->state.setup = std::move(setup);
  self->state.peers = std::move(sources);
  self->state.member = std::move(member);
  self->delayed_send(self, kTick, Tick{});
  const supervisor_actor supervisor = self->state.setup.supervisor;
  return {
      [self, supervisor](const Post& post) {
        if (!post.envelope->has_piece() || !same_job(*self->state.setup.context, *post.envelope)) return;
        guarded(self, supervisor, [&] {
          try {
            self->state.on_piece(self, post.from, post.envelope->fence().step(), post.envelope->piece());
          } catch (const Error& problem) {  // tried again at the leader's next word
            spdlog::warn("{}", problem.what());
            self->state.stop();
          }
        });
      },
      [self, supervisor](const scheduler::FollowFrom& from) {
        guarded(self, supervisor, [&] { self->state.follow(self, from); });
      },
      [self](const scheduler::BeginView&) {
        self->state.source.reset();
        if (!self->state.installing) self->state.stop();
      },
      [self, supervisor](Tick) {
        guarded(self, supervisor, [&] { self->state.tick(self); });
        self->delayed_send(self, kTick, Tick{});
      },
  };
}

}  // namespace

follower_actor spawn_follower(caf::actor_system& system, RoleSetup setup,
                              std::map<scheduler::Rank, post_actor> sources, member_actor member) {
  return system.spawn<caf::detached>(follower, std::move(setup), std::move(sources), std::move(member));
}

}  // namespace troupe::actors
