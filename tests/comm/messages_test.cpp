// Bounds of the wire messages, and decoding of bytes that nobody should have sent.
#include "comm/messages.hpp"

#include <random>

#include <doctest/doctest.h>
#include <google/protobuf/stubs/logging.h>

#include "comm/messages.pb.h"
#include "kernels/base/error.hpp"

namespace troupe::wire {

namespace {

// One well-formed message of each kind, every field set.
std::vector<Envelope> one_of_each() {
  std::vector<Envelope> all;
  const auto add = [&]() -> Envelope& {
    Envelope& envelope = all.emplace_back();
    envelope.mutable_fence()->set_job(std::string(kHashBytes, 'j'));
    envelope.mutable_fence()->mutable_ballot()->set_number(7);
    envelope.mutable_fence()->mutable_ballot()->set_leader(kRanksMax - 1);
    envelope.mutable_fence()->set_step(12);
    envelope.mutable_fence()->set_incarnation(std::string(kIncarnationBytes, 'i'));
    return envelope;
  };
  const auto slots = [](SlotSet* set) {
    for (int i = 0; i < kSlotWordsMax; ++i) set->add_words(~uint64_t{0});
  };
  const auto member = [](Member* m) {
    m->set_rank(3);
    m->set_name("n3");
    m->set_bulk_address("127.0.0.1:9100");
    m->set_incarnation(std::string(kIncarnationBytes, 'm'));
    m->set_host_id("host");
    m->set_address("[::1]:9101");
  };
  Hello& hello = *add().mutable_hello();
  hello.set_wire_version(kWireVersion);
  hello.set_node("n1");
  hello.set_incarnation(std::string(kIncarnationBytes, 'h'));
  add().mutable_heartbeat()->set_leads(true);
  Claim& claim = *add().mutable_claim();
  slots(claim.mutable_done());
  claim.set_wanted(1024);
  claim.set_slot_seconds(0.25);
  slots(add().mutable_grant()->mutable_slots());
  Seal& seal = *add().mutable_seal();
  for (uint32_t i = 0; i < kRanksMax; ++i) {
    seal.add_contributions()->set_member(i);
    slots(seal.mutable_contributions(int(i))->mutable_slots());
  }
  add().mutable_prepare();
  slots(add().mutable_inventory()->mutable_half_folded());
  View& view = *add().mutable_view();
  for (uint32_t i = 0; i < kRanksMax; ++i) member(view.add_members());
  view.set_bulk_key(std::string(kHashBytes, 'k'));
  view.set_end_step(0);
  add().mutable_suspect()->set_why("it was silent");
  add().mutable_leave()->set_why("asked to");
  add().mutable_follow()->add_sources(kRanksMax - 1);
  member(add().mutable_join()->mutable_member());
  Introduction& introduction = *add().mutable_introduction();
  member(introduction.mutable_member());
  introduction.set_fingerprint(std::string(kHashBytes, 'f'));
  introduction.set_fingerprint_text(std::string(kTextBytesMax, 't'));
  add().mutable_guest_address()->set_rank(kRanksMax - 1);
  Fetch& fetch = *add().mutable_fetch();
  fetch.set_kind(BLOB_DATA);
  fetch.set_name(std::string(255, 'n'));
  fetch.set_since(3);
  Piece& piece = *add().mutable_piece();
  piece.set_kind(BLOB_STATE);
  piece.set_data(std::string(kPieceBytes, 'd'));
  add().mutable_audit()->set_step(1023);
  add().mutable_start_job()->set_job_toml(std::string(kJobTextBytesMax, '#'));
  add().mutable_stop_job()->set_now(true);
  add().mutable_report()->set_loss(2.5);
  add().mutable_job_ended()->set_exit_code(255);
  add().mutable_node_status()->set_state("training");
  add().mutable_ask_status();
  for (uint32_t i = 0; i < 100; ++i)
    (i == 0 ? add() : all.back()).mutable_event()->add_nodes(std::string(255, 'n'));
  add().mutable_ask_cluster();
  ClusterInfo& cluster = *add().mutable_cluster_info();
  cluster.set_cluster_toml(std::string(kJobTextBytesMax, '#'));
  cluster.add_linked("n1");
  add().mutable_prepare_start()->set_work("{}");
  add().mutable_prepare_chunk()->set_documents(std::string(kBulkFieldBytesMax, 'd'));
  add().mutable_prepare_shard()->set_shard(std::string(kBulkFieldBytesMax, 's'));
  return all;
}

template <typename Change>
void refuses(std::string_view field, Change change) {
  CAPTURE(field);
  Envelope envelope;
  change(envelope);
  const auto wrong = validate(envelope);
  REQUIRE(wrong.has_value());
  CHECK(wrong->find(field) != std::string::npos);
  CHECK_THROWS_AS(encode(envelope), CheckFailure);
  Envelope decoded;
  CHECK(decode(envelope.SerializeAsString(), decoded).has_value());
  CHECK(decoded.ByteSizeLong() == 0);
}

}  // namespace

TEST_CASE("each kind of message at the edge of its bounds survives the way over the wire") {
  const auto all = one_of_each();
  CHECK(int(all.size()) == Envelope::descriptor()->oneof_decl(0)->field_count());
  for (const Envelope& envelope : all) {
    CAPTURE(kind_name(envelope));
    REQUIRE(validate(envelope).value_or("") == "");
    Envelope decoded;
    REQUIRE(decode(encode(envelope), decoded).value_or("") == "");
    CHECK(decoded.SerializeAsString() == envelope.SerializeAsString());
  }
}

TEST_CASE("a field beyond its bound is refused by its name, when sending and when receiving") {
  const auto words = [](SlotSet* set) {
    for (int i = 0; i <= kSlotWordsMax; ++i) set->add_words(1);
  };
  refuses("fence.job", [](Envelope& e) { e.mutable_fence()->set_job("short"); });
  refuses("fence.ballot.leader",
          [](Envelope& e) { e.mutable_fence()->mutable_ballot()->set_leader(kRanksMax); });
  refuses("fence.step", [](Envelope& e) { e.mutable_fence()->set_step(-2); });
  refuses("fence.incarnation", [](Envelope& e) { e.mutable_fence()->set_incarnation("x"); });
  refuses("hello.incarnation", [](Envelope& e) { e.mutable_hello()->set_node("n1"); });
  refuses("claim.done", [&](Envelope& e) { words(e.mutable_claim()->mutable_done()); });
  refuses("claim.wanted", [](Envelope& e) { e.mutable_claim()->set_wanted(1025); });
  refuses("claim.slot_seconds", [](Envelope& e) { e.mutable_claim()->set_slot_seconds(-1); });
  refuses("claim.slot_seconds", [](Envelope& e) { e.mutable_claim()->set_slot_seconds(1.0 / 0.0); });
  refuses("grant.slots", [&](Envelope& e) { words(e.mutable_grant()->mutable_slots()); });
  refuses("contribution.member",
          [](Envelope& e) { e.mutable_seal()->add_contributions()->set_member(kRanksMax); });
  refuses("seal.contributions", [](Envelope& e) {
    for (uint32_t i = 0; i <= kRanksMax; ++i) e.mutable_seal()->add_contributions();
  });
  refuses("seal.end_step", [](Envelope& e) { e.mutable_seal()->set_end_step(-1); });
  refuses("inventory.end_step", [](Envelope& e) { e.mutable_inventory()->set_end_step(-1); });
  refuses("view.end_step", [](Envelope& e) { e.mutable_view()->set_end_step(-1); });
  refuses("view.total_source", [](Envelope& e) { e.mutable_view()->set_total_source(kRanksMax + 1); });
  refuses("view.bulk_key", [](Envelope& e) { e.mutable_view()->set_bulk_key("k"); });
  refuses("member.name",
          [](Envelope& e) { e.mutable_join()->mutable_member()->set_name(std::string(256, 'n')); });
  refuses("suspect.why",
          [](Envelope& e) { e.mutable_suspect()->set_why(std::string(kTextBytesMax + 1, 'w')); });
  refuses("introduction.fingerprint", [](Envelope& e) { e.mutable_introduction()->set_reply(true); });
  refuses("guest_address.rank", [](Envelope& e) { e.mutable_guest_address()->set_rank(kRanksMax); });
  refuses("fetch.kind", [](Envelope& e) { e.mutable_fetch()->set_index(1); });
  refuses("piece.kind", [](Envelope& e) { e.mutable_piece()->set_index(1); });
  refuses("piece.data", [](Envelope& e) {
    e.mutable_piece()->set_kind(BLOB_STATE);
    e.mutable_piece()->set_data(std::string(kBulkFieldBytesMax + 1, 'd'));
  });
  refuses("audit.step", [](Envelope& e) { e.mutable_audit()->set_step(-1); });
  refuses("start_job.transport", [](Envelope& e) { e.mutable_start_job()->set_transport("carrier pigeon"); });
  refuses("start_job.job_toml",
          [](Envelope& e) { e.mutable_start_job()->set_job_toml(std::string(300000, '#')); });
  refuses("job_ended.exit_code", [](Envelope& e) { e.mutable_job_ended()->set_exit_code(256); });
  refuses("node_status.state", [](Envelope& e) { e.mutable_node_status()->set_state("asleep"); });
  refuses("prepare_chunk.documents", [](Envelope& e) {
    e.mutable_prepare_chunk()->set_documents(std::string(kBulkFieldBytesMax + 1, 'd'));
  });
  refuses("prepare_shard",
          [](Envelope& e) { e.mutable_prepare_shard()->set_shard(std::string(kMessageBytesMax, 's')); });
}

TEST_CASE("text that is not UTF-8 is refused") {
  Envelope envelope;
  envelope.mutable_leave()->set_why("\xff\xfe");
  CHECK(validate(envelope).value_or("").find("UTF-8") != std::string::npos);
}

TEST_CASE("bytes at random, cut off or with flipped bits never get past the bounds") {
  google::protobuf::SetLogHandler(nullptr);
  std::mt19937_64 random(1);
  const auto decodes_well = [](const std::string& bytes) {
    Envelope envelope;
    const bool good = !decode(bytes, envelope).has_value();
    REQUIRE(good == (good && !validate(envelope).has_value()));
    REQUIRE((good || envelope.ByteSizeLong() == 0));
  };
  for (int i = 0; i < 20000; ++i) {
    std::string bytes(random() % 200, '\0');
    for (char& byte : bytes) byte = char(random());
    decodes_well(bytes);
  }
  for (const Envelope& envelope : one_of_each()) {
    const std::string whole = envelope.SerializeAsString();
    const int tries = whole.size() > 10000 ? 20 : 300;
    for (int i = 0; i < tries; ++i) {
      decodes_well(whole.substr(0, random() % (whole.size() + 1)));
      std::string flipped = whole;
      flipped[random() % flipped.size()] ^= char(1 << (random() % 8));
      decodes_well(flipped);
    }
  }
}

TEST_CASE("bytes that would grow when they are decoded are refused before") {
  const std::string field_number_15_varint("\x78\x01", 2);
  std::string unknown;  // two million unknown fields
  while (unknown.size() + 2 < kMessageBytesMax) unknown += field_number_15_varint;
  Envelope envelope;
  CHECK(decode(unknown, envelope).has_value());

  Envelope empty_contributions;
  for (int i = 0; i < 600000; ++i) empty_contributions.mutable_seal()->add_contributions();
  CHECK(decode(empty_contributions.SerializeAsString(), envelope).has_value());
  CHECK(decode(std::string(kMessageBytesMax + 1, '\0'), envelope).has_value());
}

}  // namespace troupe::wire
