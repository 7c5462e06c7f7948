// A blob from several givers: who is asked for which piece, and what happens when one is silent, gone or
// wrong.
#include "actors/roles/blob_assembly.hpp"

#include <cstring>
#include <fstream>
#include <set>

#include <doctest/doctest.h>

#include "comm/messages.hpp"
#include "kernels/base/hash.hpp"
#include "tests/support/process.hpp"

using namespace troupe;
using namespace troupe::actors;

namespace {

constexpr scheduler::Microseconds kSecond = 1'000'000;
constexpr uint32_t kPieces = 20;

std::string blob_bytes() {
  std::string bytes((kPieces - 1) * wire::kPieceBytes + 1000, ' ');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = char(i * 31 + i / 977);
  return bytes;
}

wire::Piece piece_of(const std::string& bytes, uint32_t index) {
  wire::Piece piece;
  piece.set_index(index);
  piece.set_blob_bytes(bytes.size());
  piece.set_data(bytes.substr(index * wire::kPieceBytes, wire::kPieceBytes));
  piece.set_checksum(checksum64(piece.data().data(), piece.data().size()));
  return piece;
}

std::map<scheduler::Rank, std::set<uint32_t>> by_giver(const std::vector<BlobAssembly::Question>& questions) {
  std::map<scheduler::Rank, std::set<uint32_t>> out;
  for (const auto& question : questions) CHECK(out[question.giver].insert(question.index).second);
  return out;
}

}  // namespace

TEST_CASE("several givers are asked for different pieces, and together they give the whole") {
  const std::string bytes = blob_bytes();
  BlobAssembly blob;
  blob.begin({1, 2, 3});
  CHECK(by_giver(blob.due(0)).size() == 3);  // each for the first piece
  CHECK(blob.due(0).empty());
  REQUIRE(blob.take(2, piece_of(bytes, 0)));
  std::set<uint32_t> given = {0};
  for (scheduler::Microseconds now = 1; !blob.whole(); ++now) {
    const auto asked = by_giver(blob.due(now));
    CHECK(asked.size() == std::min<size_t>(3, kPieces - given.size()));
    for (const auto& [giver, indices] : asked)
      for (uint32_t index : indices) {
        CHECK(given.insert(index).second);
        CHECK(blob.take(giver, piece_of(bytes, index)));
      }
  }
  CHECK(given.size() == kPieces);
  const auto got = blob.take_bytes();
  REQUIRE(got.size() == bytes.size());
  CHECK(std::memcmp(got.data(), bytes.data(), bytes.size()) == 0);
}

TEST_CASE("what a giver who is gone or silent does not give comes from the others") {
  const std::string bytes = blob_bytes();
  BlobAssembly blob;
  blob.begin({1, 2});
  blob.due(0);
  blob.take(1, piece_of(bytes, 0));
  const auto first = by_giver(blob.due(0));
  REQUIRE(first.size() == 2);
  CHECK(blob.due(0).empty());  // each has as many as it may
  blob.drop_giver(2);
  CHECK_FALSE(blob.has_giver(2));
  CHECK_FALSE(blob.take(2, piece_of(bytes, *first.at(2).begin())));
  for (uint32_t index : first.at(1)) blob.take(1, piece_of(bytes, index));
  const auto second = by_giver(blob.due(1));
  REQUIRE(second.size() == 1);
  for (uint32_t index : first.at(2)) CHECK(second.at(1).contains(index));

  // A slow line is not asked twice, but a lost question is, in the end.
  blob.hear(1, kSecond);
  CHECK(blob.due(2 * kSecond).empty());
  CHECK(by_giver(blob.due(30 * kSecond)).at(1) == second.at(1));
  blob.drop_giver(1);
  CHECK_FALSE(blob.wanted());
  CHECK(blob.due(60 * kSecond).empty());
}

TEST_CASE("who has never answered is asked again after a second") {
  BlobAssembly blob;
  blob.begin({4});
  CHECK(blob.due(0).size() == 1);
  CHECK(blob.due(kSecond / 2).empty());
  CHECK(blob.due(kSecond).size() == 1);
}

TEST_CASE("a damaged piece and one that does not fit are asked for at once, and change nothing") {
  const std::string bytes = blob_bytes();
  const test::TemporaryFolder folder;
  BlobAssembly blob;
  blob.begin({1}, folder / "blob");
  blob.due(0);
  wire::Piece damaged = piece_of(bytes, 0);
  damaged.mutable_data()->front() ^= 1;
  CHECK_FALSE(blob.take(1, damaged));
  CHECK_FALSE(blob.begun());
  REQUIRE(blob.take(1, piece_of(bytes, 0)));
  const auto asked = blob.due(1);
  wire::Piece longer = piece_of(bytes, asked[0].index);
  longer.set_blob_bytes(bytes.size() + 1);
  CHECK_FALSE(blob.take(1, longer));
  wire::Piece beyond = piece_of(bytes, asked[1].index);
  beyond.set_index(kPieces);
  CHECK_FALSE(blob.take(1, beyond));
  const auto again = blob.due(1);
  REQUIRE(again.size() == 1);
  CHECK(again[0].index == asked[0].index);
  for (uint32_t index = 1; index < kPieces; ++index) CHECK(blob.take(1, piece_of(bytes, index)));
  CHECK(blob.take(1, piece_of(bytes, 5)));  // a copy
  REQUIRE(blob.whole());
  std::ifstream in(folder / "blob", std::ios::binary);
  const std::string got((std::istreambuf_iterator<char>(in)), {});
  CHECK(got == bytes);
}
