#include "comm/messages_check.hpp"

#include <cmath>
#include <initializer_list>

#include <fmt/format.h>

#include "comm/messages.hpp"
#include "comm/messages.pb.h"

namespace troupe::wire {

namespace {

constexpr uint32_t kSlotsMax = 64 * uint32_t(kSlotWordsMax);

// Remembers the first thing that is wrong.
class Check {
 public:
  void text(std::string_view field, const std::string& value, size_t bytes_max) {
    sized(field, value, bytes_max);
    if (!google::protobuf::internal::IsStructurallyValidUTF8(value.data(), int(value.size())))
      fail(field, "is not UTF-8");
  }
  void sized(std::string_view field, const std::string& value, size_t bytes_max) {
    if (value.size() > bytes_max)
      fail(field, fmt::format("has {} bytes, more than {}", value.size(), bytes_max));
  }
  void exactly(std::string_view field, const std::string& value, size_t bytes) {
    if (value.size() != bytes) fail(field, fmt::format("has {} bytes instead of {}", value.size(), bytes));
  }
  void none_or(std::string_view field, const std::string& value, size_t bytes) {
    if (!value.empty()) exactly(field, value, bytes);
  }
  void one_of(std::string_view field, const std::string& value,
              std::initializer_list<std::string_view> words) {
    for (const std::string_view word : words)
      if (value == word) return;
    fail(field, fmt::format("is '{}', which is no word it knows", value.substr(0, 32)));
  }
  void at_most(std::string_view field, uint64_t value, uint64_t limit) {
    if (value > limit) fail(field, fmt::format("is {}, more than {}", value, limit));
  }
  void at_least(std::string_view field, int64_t value, int64_t limit) {
    if (value < limit) fail(field, fmt::format("is {}, less than {}", value, limit));
  }
  void count(std::string_view field, int entries, int64_t entries_max) {
    if (entries > entries_max) fail(field, fmt::format("has {} entries, more than {}", entries, entries_max));
  }
  void seconds(std::string_view field, double value) {
    if (!std::isfinite(value) || value < 0) fail(field, "is no duration");
  }

  void slots(std::string_view field, const SlotSet& set) { count(field, set.words_size(), kSlotWordsMax); }
  void rank(std::string_view field, uint32_t value) { at_most(field, value, kRanksMax - 1); }

  void fail(std::string_view field, std::string_view what) {
    if (!wrong) wrong = fmt::format("{} {}", field, what);
  }

  std::optional<std::string> wrong;
};

void check(Check& c, const Fence& m) {
  c.none_or("fence.job", m.job(), kHashBytes);
  c.none_or("fence.incarnation", m.incarnation(), kIncarnationBytes);
  c.rank("fence.ballot.leader", m.ballot().leader());
  c.at_least("fence.step", m.step(), -1);
}

void check(Check& c, const Claim& m) {
  c.slots("claim.done", m.done());
  c.at_most("claim.wanted", m.wanted(), kSlotsMax);
  c.none_or("claim.digest", m.digest(), kHashBytes);
  c.seconds("claim.slot_seconds", m.slot_seconds());
  c.at_most("claim.workers", m.workers(), kSlotsMax);
}

void check(Check& c, const Contribution& m) {
  c.rank("contribution.member", m.member());
  c.slots("contribution.slots", m.slots());
}

void check(Check& c, const Seal& m) {
  c.count("seal.contributions", m.contributions_size(), kRanksMax);
  for (const Contribution& contribution : m.contributions()) check(c, contribution);
  c.at_least("seal.end_step", m.end_step(), 0);
}

void check(Check& c, const Member& m) {
  c.rank("member.rank", m.rank());
  c.text("member.name", m.name(), kNameBytesMax);
  c.text("member.bulk_address", m.bulk_address(), kNameBytesMax + 16);
  c.none_or("member.incarnation", m.incarnation(), kIncarnationBytes);
  c.text("member.host_id", m.host_id(), kNameBytesMax);
  c.text("member.address", m.address(), kNameBytesMax + 16);
}

void check(Check& c, const Inventory& m) {
  c.slots("inventory.folded", m.folded());
  c.slots("inventory.half_folded", m.half_folded());
  c.none_or("inventory.digest", m.digest(), kHashBytes);
  check(c, m.member());
  c.at_least("inventory.end_step", m.end_step(), 0);
}

void check(Check& c, const View& m) {
  c.rank("view.ballot.leader", m.ballot().leader());
  c.count("view.members", m.members_size(), kRanksMax);
  for (const Member& member : m.members()) check(c, member);
  c.count("view.kept", m.kept_size(), kRanksMax);
  for (const Contribution& contribution : m.kept()) check(c, contribution);
  c.at_most("view.total_source", m.total_source(), kRanksMax);
  c.none_or("view.bulk_key", m.bulk_key(), kHashBytes);
  c.at_least("view.end_step", m.end_step(), 0);
}

void check(Check& c, const Join& m) {
  check(c, m.member());
  c.rank("join.known.leader", m.known().leader());
  c.at_least("join.step", m.step(), -1);
}

void check(Check& c, const Introduction& m) {
  check(c, m.member());
  c.exactly("introduction.fingerprint", m.fingerprint(), kHashBytes);
  c.text("introduction.fingerprint_text", m.fingerprint_text(), kTextBytesMax);
}

void check_blob_kind(Check& c, std::string_view field, BlobKind kind) {
  if (kind < BLOB_STATE || kind > BLOB_DATA) c.fail(field, "is no kind that it knows");
}

void check(Check& c, const Fetch& m) {
  check_blob_kind(c, "fetch.kind", m.kind());
  c.text("fetch.name", m.name(), kNameBytesMax);
  c.at_least("fetch.since", m.since(), 0);
}

void check(Check& c, const Piece& m) {
  check_blob_kind(c, "piece.kind", m.kind());
  c.sized("piece.data", m.data(), kPieceBytes);
  c.text("piece.name", m.name(), kNameBytesMax);
  c.text("piece.absent", m.absent(), kTextBytesMax);
  c.at_least("piece.sender_step", m.sender_step(), -1);
  c.at_least("piece.offered_step", m.offered_step(), -1);
}

void check(Check& c, const StartJob& m) {
  c.text("start_job.job_toml", m.job_toml(), kJobTextBytesMax);
  c.text("start_job.data_folder", m.data_folder(), kTextBytesMax);
  c.text("start_job.out_folder", m.out_folder(), kTextBytesMax);
  c.at_most("start_job.threads", m.threads(), 4096);
  c.at_least("start_job.stop_at", m.stop_at(), 0);
  c.one_of("start_job.transport", m.transport(), {"", "auto", "tcp", "shm"});
  c.count("start_job.orders", m.orders_size(), kOrdersMax);
  c.count("start_job.nodes", m.nodes_size(), kRanksMax);
  for (const NodeAddress& node : m.nodes()) {
    c.text("start_job.nodes.name", node.name(), kNameBytesMax);
    c.text("start_job.nodes.address", node.address(), kNameBytesMax + 16);
  }
}

void check(Check& c, const Report& m) {
  c.at_least("report.step", m.step(), -1);
  c.at_least("report.steps", m.steps(), 0);
  c.at_least("report.validation_step", m.validation_step(), -1);
  c.at_least("report.skipped_steps", m.skipped_steps(), 0);
  c.at_least("report.target_tokens", m.target_tokens(), 0);
  c.at_most("report.nodes", m.nodes(), kRanksMax);
}

void check(Check& c, const JobEnded& m) {
  c.count("job_ended.orders", m.orders_size(), kOrdersMax);
  if (m.exit_code() < 0 || m.exit_code() > 255) c.fail("job_ended.exit_code", "is not between 0 and 255");
  c.text("job_ended.error", m.error(), kTextBytesMax);
  c.at_least("job_ended.step", m.step(), -1);
  c.text("job_ended.digest", m.digest(), 2 * kHashBytes);
  c.text("job_ended.checkpoint", m.checkpoint(), kTextBytesMax);
}

void check(Check& c, const NodeStatus& m) {
  c.one_of("node_status.state", m.state(), {"idle", "starting", "training", "preparing", "stopping"});
  c.at_least("node_status.step", m.step(), -1);
  c.text("node_status.leader", m.leader(), kNameBytesMax);
  c.text("node_status.version", m.version(), kNameBytesMax);
  c.count("node_status.orders", m.orders_size(), kOrdersMax);
}

void check(Check& c, const Event& m) {
  c.at_most("event.kind", uint64_t(m.kind()), Event::FAILED);
  c.at_least("event.unix_us", m.unix_us(), 0);
  c.count("event.nodes", m.nodes_size(), kRanksMax);
  for (const std::string& node : m.nodes()) c.text("event.nodes", node, kNameBytesMax);
  c.text("event.why", m.why(), kTextBytesMax);
  c.count("event.addresses", m.addresses_size(), kRanksMax);
  for (const std::string& address : m.addresses()) c.text("event.addresses", address, kNameBytesMax + 16);
}

void check(Check& c, const ClusterInfo& m) {
  c.text("cluster_info.cluster_toml", m.cluster_toml(), kJobTextBytesMax);
  c.count("cluster_info.linked", m.linked_size(), kRanksMax);
  for (const std::string& node : m.linked()) c.text("cluster_info.linked", node, kNameBytesMax);
}

void check(Check& c, const PrepareStart& m) {
  c.sized("prepare_start.work", m.work(), kControlBytesMax);
  c.sized("prepare_start.tokenizer", m.tokenizer(), kBulkFieldBytesMax);
}

void check(Check& c, const PrepareShard& m) {
  c.sized("prepare_shard.shard", m.shard(), kBulkFieldBytesMax);
  c.text("prepare_shard.error", m.error(), kTextBytesMax);
}

void check(Check& c, const Hello& m) {
  c.text("hello.node", m.node(), kNameBytesMax);
  c.exactly("hello.incarnation", m.incarnation(), kIncarnationBytes);
  c.text("hello.cluster", m.cluster(), kNameBytesMax);
  c.text("hello.version", m.version(), kNameBytesMax);
}

}  // namespace

std::optional<std::string> check_fields(const Envelope& e) {
  Check c;
  check(c, e.fence());
  switch (e.body_case()) {
    case Envelope::kHello:
      check(c, e.hello());
      break;
    case Envelope::kClaim:
      check(c, e.claim());
      break;
    case Envelope::kGrant:
      c.slots("grant.slots", e.grant().slots());
      break;
    case Envelope::kSeal:
      check(c, e.seal());
      break;
    case Envelope::kInventory:
      check(c, e.inventory());
      break;
    case Envelope::kView:
      check(c, e.view());
      break;
    case Envelope::kSuspect:
      c.rank("suspect.peer", e.suspect().peer());
      c.text("suspect.why", e.suspect().why(), kTextBytesMax);
      break;
    case Envelope::kLeave:
      c.text("leave.why", e.leave().why(), kTextBytesMax);
      break;
    case Envelope::kJoin:
      check(c, e.join());
      break;
    case Envelope::kFollow:
      c.count("follow.sources", e.follow().sources_size(), kRanksMax);
      for (uint32_t source : e.follow().sources()) c.rank("follow.sources", source);
      break;
    case Envelope::kIntroduction:
      check(c, e.introduction());
      break;
    case Envelope::kFetch:
      check(c, e.fetch());
      break;
    case Envelope::kPiece:
      check(c, e.piece());
      break;
    case Envelope::kAudit:
      c.at_least("audit.step", e.audit().step(), 0);
      c.sized("audit.hash", e.audit().hash(), kHashBytes);
      break;
    case Envelope::kStartJob:
      check(c, e.start_job());
      break;
    case Envelope::kStopJob:
      c.text("stop_job.why", e.stop_job().why(), kTextBytesMax);
      break;
    case Envelope::kReport:
      check(c, e.report());
      break;
    case Envelope::kJobEnded:
      check(c, e.job_ended());
      break;
    case Envelope::kNodeStatus:
      check(c, e.node_status());
      break;
    case Envelope::kEvent:
      check(c, e.event());
      break;
    case Envelope::kClusterInfo:
      check(c, e.cluster_info());
      break;
    case Envelope::kGuestAddress:
      c.rank("guest_address.rank", e.guest_address().rank());
      c.text("guest_address.address", e.guest_address().address(), kNameBytesMax + 16);
      break;
    case Envelope::kPrepareStart:
      check(c, e.prepare_start());
      break;
    case Envelope::kPrepareChunk:
      c.sized("prepare_chunk.documents", e.prepare_chunk().documents(), kBulkFieldBytesMax);
      break;
    case Envelope::kPrepareShard:
      check(c, e.prepare_shard());
      break;
    case Envelope::kHeartbeat:
    case Envelope::kPrepare:
    case Envelope::kAskStatus:
    case Envelope::kAskCluster:
    case Envelope::BODY_NOT_SET:
      break;
  }
  return std::move(c.wrong);
}

}  // namespace troupe::wire
