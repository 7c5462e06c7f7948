// Strangers at the ports of two nodes, many and for long, while the two go about their work: they must not
// notice, and the process must not grow. TROUPE_HOSTILE_INPUTS says how many inputs there are.
#include <cstdlib>
#include <future>

#include "kernels/base/random.hpp"
#include "tests/comm/attack.hpp"
#include "tests/comm/honest_traffic.hpp"
#include "tests/comm/siege.hpp"

namespace troupe::comm::test {

namespace {

constexpr uint64_t kInputsDefault = kSanitized ? 5'000 : 100'000;  // of both tests together
constexpr uint64_t kEncryptedShare = 5;  // one in so many is for ports with certificates: they take longer
constexpr size_t kAtOnce = 16;           // of each kind of port
constexpr uint64_t kGrowthMax = uint64_t{16} << 20;
// Both ends of the connections that are open at a time, and those that are being closed.
constexpr uint64_t kDescriptorsMax = 600;

uint64_t inputs_wanted() {
  const char* text = std::getenv("TROUPE_HOSTILE_INPUTS");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : kInputsDefault;
}

void report(const char* what, const AttackTotals& totals) {
  MESSAGE(std::string(what), ": ", totals.inputs, " inputs of ", totals.bytes, " bytes in ", totals.seconds,
          " s, ", totals.answered, " answered, ", totals.handshakes, " TLS handshakes");
}

void besiege(bool encrypted, uint64_t inputs) {
  const Siege siege(encrypted);
  const LinkInputs link_inputs;
  const BulkInputs bulk_inputs;
  HonestLink link(siege.certificates, 30'000);
  HonestRing ring(siege.certificates);
  const auto to_links = [&](uint64_t index) {
    AttackInput input{link.address(index / 3 % 2), link_inputs.make(index, encrypted)};
    input.reset = mix64(index, 1) % 5 == 0;
    if (encrypted) siege.at_links->dress(input, index / 10);
    return input;
  };
  const auto to_bulk = [&](uint64_t index) {
    AttackInput input{ring.address(index / 5 % 2),
                      bulk_inputs.make(index, HonestRing::session(0, ring.rounds()).ballot.number)};
    input.reset = mix64(index, 1) % 5 == 0;
    if (encrypted) siege.at_bulk->dress(input, index / 18);
    return input;
  };
  uint64_t done = 0;
  AttackTotals at_links, at_bulk;
  const auto send = [&](uint64_t count) {
    auto other = std::async(std::launch::async, [&] {
      return attack(count, kAtOnce, [&](uint64_t index) { return to_bulk(done + index); });
    });
    at_links = attack(count, kAtOnce, [&](uint64_t index) { return to_links(done + index); });
    at_bulk = other.get();
    done += count;
    CHECK(at_links.not_ended == 0);
    CHECK(at_bulk.not_ended == 0);
    CHECK(std::max(at_links.descriptors_max, at_bulk.descriptors_max) < kDescriptorsMax);
  };
  send(inputs / 8);  // buffers and tables reach their size
  const uint64_t resident = resident_bytes(), rounds = ring.rounds(), delivered = link.delivered();
  send(inputs / 2 - done);
  report("links", at_links);
  report("bulk", at_bulk);
  const int64_t growth = int64_t(resident_bytes()) - int64_t(resident);
  if (!kSanitized) CHECK(growth < int64_t(kGrowthMax));
  CHECK(at_links.answered > at_links.inputs / (encrypted ? 16 : 2));
  if (encrypted) CHECK(at_links.handshakes > at_links.inputs / 16);
  if (encrypted) CHECK(at_bulk.handshakes > at_bulk.inputs / 16);
  CHECK(ring.rounds() > rounds);
  CHECK(link.delivered() > delivered);
  MESSAGE("grown by ", growth / 1024, " KiB; at most ", at_links.descriptors_max, " descriptors; meanwhile ",
          link.delivered() - delivered, " messages, ", ring.rounds() - rounds, " rings, the longest ",
          ring.longest_round_seconds(), " s");
  CHECK(link.finish() == 0);
  CHECK(ring.finish() == 0);
  CHECK(ring.what_went_wrong() == "");
}

}  // namespace

TEST_CASE("hostile inputs to links and rings in plain text disturb nobody and leave nothing behind") {
  besiege(false, inputs_wanted() - inputs_wanted() / kEncryptedShare);
}

TEST_CASE("hostile inputs to links and rings with certificates disturb nobody and leave nothing behind") {
  besiege(true, inputs_wanted() / kEncryptedShare);
}

}  // namespace troupe::comm::test
