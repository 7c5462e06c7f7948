// A dataset folder that takes files from two nodes, of which one may lack them or give something else.
#include "actors/roles/dataset_repair.hpp"

#include <filesystem>

#include <doctest/doctest.h>

#include "comm/messages.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/hash.hpp"
#include "tests/data/support.hpp"

using namespace troupe;
using namespace troupe::actors;

namespace {

constexpr scheduler::Microseconds kSecond = 1'000'000;

struct Folder {
  test::TemporaryFolder folder;
  std::string bytes = std::string(wire::kPieceBytes, 'a') + std::string(100, 'b');
  std::vector<data::FileEntry> lacking = {{"empty", 0, sha256_hex("", 0)},
                                          {"shard", bytes.size(), sha256_hex(bytes.data(), bytes.size())}};
  DatasetRepair repair{
      {folder / "set", "alpha", {{1, "beta"}, {2, "gamma"}}, {0, 1, 2}, "no shard"}, lacking, 0};

  wire::Piece piece(uint32_t index, const std::string& of) const {
    wire::Piece piece;
    piece.set_name("shard");
    piece.set_index(index);
    piece.set_blob_bytes(of.size());
    piece.set_data(of.substr(index * wire::kPieceBytes, wire::kPieceBytes));
    piece.set_checksum(checksum64(piece.data().data(), piece.data().size()));
    return piece;
  }
  wire::Piece absent() const {
    wire::Piece piece;
    piece.set_name("shard");
    piece.set_absent("it lacks it too");
    return piece;
  }
  // Answers every question; `others` is what gamma gives.
  void answer_all(const std::string& others) {
    for (int round = 0; round < 20 && !repair.whole(); ++round)
      for (const auto& question : repair.due(round))
        repair.take(question.giver, piece(question.index, question.giver == 1 ? bytes : others), round);
  }
};

}  // namespace

TEST_CASE("a lacking file comes from whoever has it, and an empty one needs nobody") {
  Folder f;
  CHECK_FALSE(f.repair.lacks("empty"));
  REQUIRE(f.repair.lacks("shard"));
  f.repair.take(2, f.absent(), 0);
  f.answer_all("");
  REQUIRE(f.repair.whole());
  CHECK(std::filesystem::file_size(f.folder / "set/shard") == f.bytes.size());
  CHECK(std::filesystem::file_size(f.folder / "set/empty") == 0);
  CHECK(f.repair.due(kSecond).empty());
}

TEST_CASE("when several have given nonsense together, each is asked alone") {
  Folder f;
  std::string other = f.bytes;
  other[5] = other[wire::kPieceBytes + 5] = '!';
  f.answer_all(other);
  CHECK(f.repair.whole());
}

TEST_CASE("no folder is made for files that nobody has") {
  const test::TemporaryFolder folder;
  const std::string set = folder / "not there";
  DatasetRepair repair{{set, "alpha", {{1, "beta"}}, {0, 1}, "no manifest"}, {{"manifest.json", 0, ""}}, 0};
  wire::Piece absent;
  absent.set_name("manifest.json");
  absent.set_absent("it lacks it too");
  test::check_error(ErrorKind::file, {"no manifest"}, [&] { repair.take(1, absent, 0); });
  CHECK_FALSE(std::filesystem::exists(set));
}

TEST_CASE("a file that nobody has, or of which nobody says anything, is named") {
  Folder f;
  f.repair.take(1, f.absent(), 0);
  test::check_error(
      ErrorKind::file,
      {"no shard. No other node has a whole shard to give (beta: it lacks it too; gamma: it lacks it "
       "too)"},
      [&] { f.repair.take(2, f.absent(), 0); });
  Folder silent;
  test::check_error(ErrorKind::file, {"(none has answered)"}, [&] {
    for (int second = 0; second <= 30; ++second) silent.repair.due(second * kSecond);
  });
  Folder damaged;
  damaged.bytes[3] = '!';
  test::check_error(ErrorKind::file, {"what it gives is damaged"},
                    [&] { damaged.answer_all(damaged.bytes); });
}

TEST_CASE("who says that it is not that far itself is waited for") {
  Folder f;
  wire::Piece wait;
  wait.set_name("shard");
  for (auto now = kSecond; now < 100 * kSecond; now += kSecond) {
    f.repair.due(now);
    f.repair.take(1, wait, now);
  }
  test::check_error(ErrorKind::file, {"(none has answered)"}, [&] {
    for (auto now = 100 * kSecond; now < 130 * kSecond; now += kSecond) f.repair.due(now);
  });
}

TEST_CASE("who stood still for longer than its patience blames nobody for the silence") {
  Folder f;
  f.repair.due(0);
  f.repair.due(60 * kSecond);
  f.repair.take(2, f.absent(), 120 * kSecond);
  for (auto now = 121 * kSecond; now < 130 * kSecond; now += kSecond / 10)
    for (const auto& question : f.repair.due(now))
      f.repair.take(question.giver, f.piece(question.index, f.bytes), now);
  CHECK(f.repair.whole());
}

TEST_CASE("a repair that does not come to its end leaves no part of a file behind") {
  Folder f;  // for what is given
  const std::string set = f.folder / "another set";
  {
    DatasetRepair repair{{set, "alpha", {{1, "beta"}}, {0, 1}, "no shard"}, {f.lacking.back()}, 0};
    repair.due(0);
    repair.take(1, f.piece(0, f.bytes), 0);
    REQUIRE(std::filesystem::exists(set + "/.shard.alpha.part"));
  }
  CHECK(std::filesystem::is_empty(set));
}
