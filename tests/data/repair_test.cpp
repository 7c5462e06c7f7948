// What a dataset folder lacks, and files from elsewhere that make it whole again.
#include "data/repair.hpp"

#include <fstream>

#include "data/dataset.hpp"
#include "tests/data/support.hpp"

using namespace troupe;
using namespace troupe::data;

namespace {

std::vector<std::string> names_of(const std::vector<FileEntry>& files) {
  std::vector<std::string> names;
  for (const FileEntry& file : files) names.push_back(file.name);
  return names;
}

}  // namespace

TEST_CASE("a folder that lacks files takes them from another, and nothing but them") {
  const test::TemporaryFolder folder;
  const std::string good = folder / "good", bad = folder / "bad";
  auto options = test::small_options(good, test::made_up_pairs(700));
  options.shard_bytes_max = 16'384;  // several shards
  prepare_local(options, 1);
  CHECK(lacking_files(good).empty());
  const auto all = file_names(good);
  CHECK(all.size() == test::folder_bytes(good).size());

  std::filesystem::create_directory(bad);
  CHECK(names_of(lacking_files(bad)) == std::vector<std::string>{"manifest.json"});
  CHECK(names_of(lacking_files(folder / "nowhere")) == std::vector<std::string>{"manifest.json"});
  const auto copy = [&](const std::string& name) {
    std::filesystem::copy_file(good + "/" + name, bad + "/.part");
    return bad + "/.part";
  };
  REQUIRE(adopt_file(bad, lacking_files(bad)[0], copy("manifest.json")));
  auto lacking = lacking_files(bad);
  CHECK(lacking.size() == all.size() - 1);
  for (const FileEntry& file : lacking) REQUIRE(adopt_file(bad, file, copy(file.name)));
  CHECK(Dataset::open(bad)->digest() == Dataset::open(good)->digest());

  // One shard changes, another is gone, a third is cut short.
  const std::vector<std::string> hurt = {lacking[1].name, lacking[2].name, lacking[3].name};
  std::fstream(bad + "/" + hurt[0], std::ios::in | std::ios::out | std::ios::binary).seekp(900).put('!');
  std::filesystem::remove(bad + "/" + hurt[1]);
  std::filesystem::resize_file(bad + "/" + hurt[2], 100);
  lacking = lacking_files(bad);
  CHECK(names_of(lacking) == hurt);
  const std::string wrong = copy(hurt[1]);
  CHECK_FALSE(adopt_file(bad, lacking[0], wrong));
  std::filesystem::remove(wrong);
  for (const FileEntry& file : lacking) CHECK(adopt_file(bad, file, copy(file.name)));
  CHECK(test::folder_bytes(bad) == test::folder_bytes(good));
}
