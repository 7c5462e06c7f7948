#include "comm/ring.hpp"

#include <future>

#include "comm/ring_engine.hpp"

namespace troupe::comm {

struct Ring::Core {
  RingEngine engine;
  const RingOptions options;

  size_t members() const { return engine.size(); }

  void start(int64_t step, RingPlan plan, std::span<const SlotWords> contributions,
             std::unique_ptr<RingWork> work) {
    TROUPE_CHECK(contributions.size() == members(), "{} contributions of {} members", contributions.size(),
                 members());
    engine.start(
        {step, std::move(plan), check_contributions(contributions, engine.position()), std::move(work)});
  }
};

Ring::Ring(std::vector<BulkPeer> members, size_t position, RingLinks links, RingOptions options)
    : core_(new Core{{std::move(members), position, std::move(links), options}, options}) {}
Ring::~Ring() = default;

size_t Ring::size() const {
  return core_->engine.size();
}
size_t Ring::position() const {
  return core_->engine.position();
}

void Ring::start(const ExactReduction& reduction) {
  TROUPE_CHECK(reduction.layout != nullptr && reduction.total != nullptr);
  core_->start(reduction.step,
               plan_blocks(*reduction.layout, reduction.buckets, size(), position(),
                           core_->options.chunk_elements_max),
               reduction.contributions, make_exact_work(reduction));
}

void Ring::start(const FloatReduction& reduction) {
  core_->start(reduction.step,
               plan_elements(int64_t(reduction.values.size()), reduction.buckets, size(), position(),
                             core_->options.chunk_elements_max),
               reduction.contributions, make_float_work(reduction));
}

void Ring::bucket_ready(size_t index) {
  core_->engine.bucket_ready(index);
}
void Ring::check() const {
  core_->engine.check();
}
void Ring::finish(const SumMeta& own) {
  core_->engine.finish(own);
}
SumMeta Ring::wait(Deadline deadline) {
  return core_->engine.wait(deadline);
}

SumMeta Ring::reduce(const ExactReduction& reduction, const SumMeta& own, Deadline deadline) {
  start(reduction);
  finish(own);
  return wait(deadline);
}

SumMeta Ring::reduce(const FloatReduction& reduction, const SumMeta& own, Deadline deadline) {
  start(reduction);
  finish(own);
  return wait(deadline);
}

void Ring::broadcast(size_t root, std::vector<std::byte>& bytes, size_t bytes_max, Deadline deadline) {
  core_->engine.broadcast(root, bytes, bytes_max, deadline);
}

void Ring::cancel(const std::string& why) {
  core_->engine.cancel(why);
}
void Ring::stop(const std::string& why) {
  core_->engine.stop(why);
}
RingStats Ring::stats() const {
  return core_->engine.stats();
}

namespace {

// Nobody dialled: it is the previous member who should have.
[[noreturn]] void rethrow_as_of(const BulkPeer& previous, const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const PeerError&) {
    throw;
  } catch (const Error& late) {
    throw PeerError(late.kind(), previous.rank, late.what());
  }
}

}  // namespace

RingLinks connect_ring(BulkListener& listener, const BulkSession& session, std::span<const BulkPeer> members,
                       const std::shared_ptr<SSL_CTX>& tls, Deadline deadline) {
  size_t position = 0;
  while (position < members.size() && members[position].rank != session.rank) ++position;
  TROUPE_CHECK(position < members.size(), "rank {} is not in the ring", session.rank);
  if (members.size() == 1) return {};
  const BulkPeer& next = members[(position + 1) % members.size()];
  const BulkPeer& previous = members[(position + members.size() - 1) % members.size()];
  // Both at once: each member's dial is answered by the next one's accept.
  auto dialled = std::async(std::launch::async, [&] {
    try {
      return bulk_connect(session, next, tls, deadline);
    } catch (...) {
      listener.cancel();  // no use in waiting for the other side
      throw;
    }
  });
  std::optional<BulkConnection> accepted;
  std::exception_ptr not_accepted;
  try {
    accepted = listener.accept(session, {&previous, 1}, deadline);
  } catch (...) {
    not_accepted = std::current_exception();
  }
  RingLinks links;
  try {
    links.next = dialled.get();
  } catch (...) {
    listener.forget_cancel();
    throw;
  }
  if (not_accepted) rethrow_as_of(previous, not_accepted);
  links.previous = std::move(accepted);
  return links;
}

}  // namespace troupe::comm
