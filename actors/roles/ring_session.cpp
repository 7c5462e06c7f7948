#include "actors/roles/ring_session.hpp"

#include <algorithm>
#include <cstring>

#include <spdlog/spdlog.h>

#include "actors/engines/train_engine.hpp"
#include "comm/device_group.hpp"
#include "comm/ring_plan.hpp"

namespace troupe::actors {

namespace {

constexpr int64_t kBucketElements = int64_t{1} << 20;
// For a whole step of the slowest member; silence is noticed much sooner.
constexpr int kStepPatienceMs = 3'600'000;
constexpr std::chrono::milliseconds kFeedTick{5};  // who waits for a slot looks for the end of the view
constexpr int kBroadcastPatienceMs = 600'000;
constexpr size_t kPlaceBytesMax = 4096;  // of a member's devices, and of a group's id
constexpr int kGroupFailuresMax = 2;     // then the ring adds, which needs nothing but the host

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
std::vector<std::byte> bytes_of(const std::string& text) {
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  return {first, first + text.size()};
}

}  // namespace

comm::BulkSession RingSession::session() const {
  const NodeServices& node = *context_->services;
  comm::BulkSession session;
  std::copy(context_->job_id.begin(), context_->job_id.end(), session.job.begin());
  session.ballot = {view_.ballot.number, view_.ballot.leader};
  session.key = view_.bulk_key;
  session.rank = node.rank;
  session.host_id = node.host_id;
  session.transport = context_->transport;
  session.silence_ms_max =
      int(context_->cluster.patience_ms * 2 / 3);  // sooner than the links, with the rank
  return session;
}

// The cluster file may know a way to it that the member itself does not.
std::string RingSession::reached_at(const scheduler::Member& member) const {
  const std::string& known = context_->cluster.nodes.at(member.rank).bulk_address;
  return known.empty() || known.ends_with(":0") ? member.bulk_address : known;
}

void RingSession::require_current() const {
  if (cancelled_) throw Error(ErrorKind::cancelled, *cancelled_);
  if (view_.ballot < floor_) throw error(ErrorKind::cancelled, "the view {} is over", view_.ballot.number);
}

void RingSession::connect(const scheduler::View& view) {
  stop_fed();
  view_ = view;
  in_group_.reset();
  position_ = view_.position(context_->rank()).value();
  std::vector<comm::BulkPeer> members;
  for (const scheduler::Member& m : view_.members)
    members.push_back({m.rank, m.name, reached_at(m), m.host_id});
  comm::BulkSession session = this->session();
  std::shared_ptr<comm::Ring> before;
  {
    const std::lock_guard lock(mutex_);
    before = std::move(ring_);
    require_current();
    give_up_ = std::make_shared<std::atomic<bool>>(false);
    session.cancelled = give_up_;
  }
  before.reset();
  comm::RingLinks links;
  if (!alone())
    links = comm::connect_ring(*context_->services->bulk, session, members, context_->services->tls_client,
                               comm::deadline_in_ms(context_->cluster.patience_ms + 2000));
  auto ring = std::make_shared<comm::Ring>(std::move(members), position_, std::move(links));
  const std::lock_guard lock(mutex_);
  require_current();
  ring_ = std::move(ring);
}

std::shared_ptr<comm::Ring> RingSession::ring() const {
  const std::lock_guard lock(mutex_);
  require_current();
  if (!ring_) throw error(ErrorKind::cancelled, "the ring of view {} is not connected", view_.ballot.number);
  return ring_;
}

// All members ask at the same place, since all have the same kind of device: the first reduction of a view.
bool RingSession::in_group(TrainEngine& engine, comm::Ring& ring) {
  if (engine.group() == nullptr) return false;
  if (!in_group_) in_group_ = form_group(*engine.group(), ring);
  return *in_group_;
}

bool RingSession::form_group(comm::DeviceGroup& group, comm::Ring& ring) {
  const comm::Deadline deadline = comm::deadline_in_ms(kBroadcastPatienceMs);
  const std::string own = group_failures_ < kGroupFailuresMax ? group.place() : "";
  const auto said_by = [&](size_t position, const std::string& ours) {
    std::vector<std::byte> bytes;
    if (position == position_) bytes = bytes_of(ours);
    ring.broadcast(position, bytes, kPlaceBytesMax, deadline);
    return text_of(bytes);
  };
  std::vector<std::string> places;
  for (size_t i = 0; i < view_.members.size(); ++i) places.push_back(said_by(i, own));
  if (!comm::can_form_group(places)) {
    spdlog::info("the devices of this view add their sums by way of the host");
    return false;
  }
  const std::string id = said_by(0, position_ == 0 ? new_group_id(group) : "");
  if (id.empty()) {
    spdlog::warn("the devices of view {} add their sums by way of the host: {} could not make their group",
                 view_.ballot.number, view_.members[0].name);
    return false;
  }
  const comm::GroupPlace place = comm::place_among(places, position_, id);
  try_group([&] { group.join(place, give_up_, deadline); });
  spdlog::info("the {} devices of this view add their sums among themselves", place.size);
  return true;
}

// Empty when it cannot be made: the others wait for it.
std::string RingSession::new_group_id(const comm::DeviceGroup& group) {
  try {
    return group.new_id();
  } catch (const Error& failure) {
    ++group_failures_;
    spdlog::warn("the group of devices of view {} has failed: {}", view_.ballot.number, failure.what());
    return "";
  }
}

comm::SumMeta RingSession::finish_in_group(TrainEngine& engine) {
  comm::SumMeta sum;
  try_group(
      [&] { sum = engine.finish_in_group(view_.members.size(), comm::deadline_in_ms(kStepPatienceMs)); });
  group_failures_ = 0;
  return sum;
}

// Whose fault it is, a group cannot say: the view ends as one that is given up, and the links say who is
// gone.
void RingSession::try_group(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& failure) {
    if (failure.kind() == ErrorKind::cancelled) throw;
    ++group_failures_;
    spdlog::warn("the group of devices of view {} has failed: {}", view_.ballot.number, failure.what());
    throw error(ErrorKind::cancelled, "{}", failure.what());
  }
}

std::vector<std::vector<uint64_t>> RingSession::contributions_of(const scheduler::Seal& seal) const {
  std::vector<std::vector<uint64_t>> contributions;
  for (const scheduler::Member& member : view_.members) {
    const auto found = seal.contributions.find(member.rank);
    contributions.push_back(found == seal.contributions.end() ? std::vector<uint64_t>{}
                                                              : found->second.words());
  }
  return contributions;
}

scheduler::SlotSet RingSession::own_slots(const scheduler::Seal& seal) const {
  const auto found = seal.contributions.find(context_->rank());
  return found == seal.contributions.end() ? scheduler::SlotSet() : found->second;
}

void RingSession::feed(const std::shared_ptr<TrainEngine>& engine, const scheduler::Seal& seal) {
  if (alone() || !engine->sum_grows() || seal.fence.ballot != view_.ballot) return;
  try {
    const std::shared_ptr<comm::Ring> ring = this->ring();
    const bool grouped = in_group(*engine, *ring);
    fed_from_ = engine;
    if (grouped)
      feed_group(*engine, seal);
    else
      feed_ring(*engine, seal, *ring);
  } catch (...) {
    stop_fed();
    throw;
  }
}

void RingSession::stop_fed() {
  if (!fed_from_) return;
  std::shared_ptr<comm::Ring> ring;
  {
    const std::lock_guard lock(mutex_);
    ring.swap(ring_);
  }
  // supersede() and cancel() may hold it still, so letting go of it is not enough.
  if (ring) ring->stop("its step is given up");
  ring.reset();
  if (in_group_.value_or(false)) fed_from_->group()->leave();
  fed_from_.reset();
}

bool RingSession::adds_in_group() {
  if (!fed_from_ || !in_group_.value_or(false)) return false;
  if (*give_up_) stop_fed();
  return fed_from_ != nullptr;
}

// Bucket by bucket, from the last layer on, as the running slots fold them for the last time.
void RingSession::feed_ring(TrainEngine& engine, const scheduler::Seal& seal, comm::Ring& ring) {
  comm::ExactReduction reduction = engine.exact_reduction();
  reduction.contributions = contributions_of(seal);
  reduction.buckets = comm::buckets_last_first(engine.model().parameters().layout(), kBucketElements);
  ring.start(reduction);
  const scheduler::SlotSet own = own_slots(seal);
  for (size_t i = 0; i < reduction.buckets.size(); ++i) {
    while (!engine.progress().wait(own, reduction.buckets[i].begin, kFeedTick)) ring.check();
    engine.fetch_sum(reduction.buckets[i].begin, reduction.buckets[i].end);
    ring.bucket_ready(i);
  }
}

// The same.
void RingSession::feed_group(TrainEngine& engine, const scheduler::Seal& seal) {
  comm::check_contributions(contributions_of(seal), position_);
  const scheduler::SlotSet own = own_slots(seal);
  const comm::Deadline deadline = comm::deadline_in_ms(kStepPatienceMs);
  const std::span<const comm::Bucket> buckets = engine.group_buckets();
  for (size_t i = 0; i < buckets.size(); ++i) {
    while (!engine.progress().wait(own, buckets[i].begin, kFeedTick))
      if (*give_up_) throw error(ErrorKind::cancelled, "the view {} is over", view_.ballot.number);
    try_group([&] { engine.add_in_group(i, deadline); });
  }
}

comm::SumMeta RingSession::reduce(TrainEngine& engine, const scheduler::Seal& seal) {
  try {
    const comm::SumMeta sum = sum_of_all(engine, seal);
    fed_from_.reset();
    return sum;
  } catch (...) {
    // What lies in the devices' streams would wait for members that are gone. A ring keeps its links until
    // the next one: its neighbours are to find out who is gone, and not to take this member for it.
    if (in_group_.value_or(false)) fed_from_ ? stop_fed() : engine.group()->leave();
    throw;
  }
}

comm::SumMeta RingSession::sum_of_all(TrainEngine& engine, const scheduler::Seal& seal) {
  const comm::SumMeta own = engine.own_sum();
  const std::shared_ptr<comm::Ring> ring = this->ring();
  if (alone()) return own;
  if (in_group(engine, *ring)) {
    if (!fed_from_) feed_group(engine, seal);
    return finish_in_group(engine);
  }
  const comm::Deadline deadline = comm::deadline_in_ms(kStepPatienceMs);
  if (!engine.exact()) {
    comm::FloatReduction reduction = engine.float_reduction();
    reduction.contributions = contributions_of(seal);
    reduction.buckets = {{0, engine.model().parameters().elements()}};
    return ring->reduce(reduction, own, deadline);
  }
  if (!fed_from_) feed_ring(engine, seal, *ring);
  ring->finish(own);
  return ring->wait(deadline);
}

void RingSession::broadcast(scheduler::Rank root, std::vector<std::byte>& bytes, size_t bytes_max) {
  ring()->broadcast(view_.position(root).value(), bytes, bytes_max,
                    comm::deadline_in_ms(kBroadcastPatienceMs));
}

void RingSession::supersede(const scheduler::Ballot& ballot) {
  std::shared_ptr<comm::Ring> ring;
  {
    const std::lock_guard lock(mutex_);
    if (ballot <= floor_) return;
    floor_ = ballot;
    *give_up_ = true;
    ring = ring_;
  }
  if (ring) ring->cancel("a new view is being formed");
}

void RingSession::cancel(const std::string& why) {
  std::shared_ptr<comm::Ring> ring;
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = why;
    *give_up_ = true;
    ring = ring_;
  }
  if (ring) ring->cancel(why);
}

}  // namespace troupe::actors
