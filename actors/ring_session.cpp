#include "actors/ring_session.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>

#include "actors/train_engine.hpp"

namespace troupe::actors {

namespace {

constexpr int64_t kBucketElements = int64_t{1} << 20;
constexpr int kStepPatienceMs =
    3'600'000;  // for a whole step of the slowest member; silence is noticed much sooner
constexpr size_t kPieceBytes = size_t{16} << 20;

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
  session.silence_ms_max = int(context_->cluster.patience_ms * 2 / 3);  // sooner than the links, and with the rank
  return session;
}

void RingSession::connect(const scheduler::View& view) {
  view_ = view;
  position_ = view_.position(context_->rank()).value();
  members_.clear();
  for (const scheduler::Member& m : view_.members)
    members_.push_back({m.rank, m.name, m.bulk_address, m.host_id});
  comm::RingLinks links;
  const int connect_patience_ms = int(context_->cluster.patience_ms) + 2000;
  if (!alone())
    links = comm::connect_ring(*context_->services->bulk, session(), members_, context_->services->tls_client,
                               comm::deadline_in_ms(connect_patience_ms));
  auto ring = std::make_shared<comm::Ring>(members_, position_, std::move(links));
  const std::lock_guard lock(mutex_);
  if (cancelled_) throw Error(ErrorKind::cancelled, *cancelled_);
  ring_ = std::move(ring);
}

comm::SumMeta RingSession::reduce(TrainEngine& engine, const scheduler::Seal& seal) {
  const comm::SumMeta own = engine.own_sum();
  if (alone()) return own;
  std::vector<std::vector<uint64_t>> contributions;
  for (const scheduler::Member& member : view_.members) {
    const auto found = seal.contributions.find(member.rank);
    contributions.push_back(found == seal.contributions.end() ? std::vector<uint64_t>{}
                                                              : found->second.words());
  }
  const comm::Deadline deadline = comm::deadline_in_ms(kStepPatienceMs);
  const kernels::BlockLayout& layout = engine.model().parameters().layout();
  if (engine.exact()) {
    comm::ExactReduction reduction = engine.exact_reduction();
    reduction.contributions = std::move(contributions);
    reduction.buckets = comm::buckets_last_first(layout, kBucketElements);
    return ring_->reduce(reduction, own, deadline);
  }
  comm::FloatReduction reduction = engine.float_reduction();
  reduction.contributions = std::move(contributions);
  reduction.buckets = {{0, layout.elements()}};
  return ring_->reduce(reduction, own, deadline);
}

void RingSession::pass_file(scheduler::Rank root, const std::filesystem::path& from,
                            const std::filesystem::path& to) {
  const bool sends = context_->rank() == root;
  const size_t root_position = view_.position(root).value();
  std::ifstream in;
  std::ofstream out;
  uint64_t left = 0;
  std::vector<std::byte> piece(sizeof left);
  if (sends) {
    in.open(from, std::ios::binary);
    left = std::filesystem::file_size(from);
    std::memcpy(piece.data(), &left, sizeof left);
  } else {
    std::filesystem::create_directories(to.parent_path());
    out.open(to, std::ios::binary | std::ios::trunc);
  }
  if (sends ? !in : !out)
    throw error(ErrorKind::file, "cannot open {} to pass the state on: {}", (sends ? from : to).string(),
                std::strerror(errno));
  ring_->broadcast(root_position, piece, sizeof left, comm::deadline_in_ms(kStepPatienceMs));
  TROUPE_CHECK(piece.size() == sizeof left);
  std::memcpy(&left, piece.data(), sizeof left);
  while (left > 0) {
    piece.resize(size_t(std::min<uint64_t>(left, kPieceBytes)));
    if (sends && !in.read(reinterpret_cast<char*>(piece.data()), std::streamsize(piece.size())))
      throw error(ErrorKind::file, "{} ended early while it was passed on", from.string());
    ring_->broadcast(root_position, piece, kPieceBytes, comm::deadline_in_ms(kStepPatienceMs));
    if (!sends && !out.write(reinterpret_cast<const char*>(piece.data()), std::streamsize(piece.size())))
      throw error(ErrorKind::file, "cannot write {}: {}", to.string(), std::strerror(errno));
    TROUPE_CHECK(!piece.empty() && piece.size() <= left);
    left -= piece.size();
  }
}

void RingSession::cancel(const std::string& why) {
  const std::lock_guard lock(mutex_);
  cancelled_ = why;
  if (ring_) ring_->cancel(why);
  context_->services->bulk->cancel();
}

}  // namespace troupe::actors
