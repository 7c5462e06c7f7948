// What lies in the folder that a dataset is made in: what is of a dataset goes, what is somebody's own stays.
#include "data/work_folder.hpp"

#include "data/dataset.hpp"
#include "tests/data/support.hpp"

using namespace troupe;
using namespace troupe::data;

namespace {

// Of two files, which it writes.
PrepareOptions aligned_options(const test::TemporaryFolder& folder, const std::string& out,
                               const std::string& source_name, const std::string& target_name) {
  std::string source, target;
  for (const RawDocument& document : test::made_up_pairs(60)) {
    source += document.source[0] + "\n";
    target += document.target[0] + "\n";
  }
  auto options = test::small_options(out, {});
  options.source.kind = SourceKind::aligned;
  options.source.source_path = folder.write(source_name, source);
  options.source.target_path = folder.write(target_name, target);
  return options;
}

}  // namespace

TEST_CASE("files that are only named like those of a dataset stay, the text itself among them") {
  const test::TemporaryFolder folder;
  const std::string out = folder / "out";
  make_folder(out);
  auto options = aligned_options(folder, out, "out/train-en.tokens", "out/train-fr.tokens");
  for (const std::string name :
       {"train-0001.tokens", "valid-.tokens", "test-00001x.tokens", "test-00001.tokens.gz", "train.tokens"})
    folder.write("out/" + name, "somebody's own");
  const auto before = test::folder_bytes(out);
  folder.write("out/train-00007.tokens", "of a dataset that a kill has left without its manifest");
  options.overwrite = true;
  prepare_local(options, 1);
  CHECK(Dataset::open(out)->samples(Split::train) > 0);
  auto after = test::folder_bytes(out);
  CHECK(after.count("train-00007.tokens") == 0);
  for (const auto& [name, bytes] : before) {
    CAPTURE(name);
    CHECK(after[name] == bytes);
  }
}

TEST_CASE("a text or a tokenizer that would be removed with a dataset is refused") {
  const test::TemporaryFolder folder;
  const std::string out = folder / "out";
  make_folder(out);
  auto options = aligned_options(folder, out, "source", "out/valid.text.tsv");
  auto by_link = options;
  by_link.source.target_path = folder / "link";
  std::filesystem::create_symlink(options.source.target_path, by_link.source.target_path);
  auto with_tokenizer = aligned_options(folder, out, "source", "target");
  with_tokenizer.tokenizer_file = folder.write("out/train-00000.tokens", "a model");
  const auto before = test::folder_bytes(out);
  for (const bool overwrite : {false, true}) {
    CAPTURE(overwrite);
    for (PrepareOptions* const mistaken : {&options, &by_link, &with_tokenizer}) {
      mistaken->overwrite = overwrite;
      const std::string input =
          mistaken->tokenizer_file.empty() ? mistaken->source.target_path : mistaken->tokenizer_file;
      test::check_error(ErrorKind::usage, {input, out, "would be removed", "another name"},
                        [&] { prepare_local(*mistaken, 1); });
      CHECK(test::folder_bytes(out) == before);
    }
  }
}

TEST_CASE("files of no dataset are not replaced, nor is one of another name taken for one") {
  const test::TemporaryFolder folder;
  const std::string out = folder / "out";
  make_folder(out);
  folder.write("out/tokenizer.model", "somebody's own");
  const auto options = aligned_options(folder, out, "out/train-en.tokens", "out/train-fr.tokens");
  const auto before = test::folder_bytes(out);
  test::check_error(ErrorKind::usage, {"tokenizer.model", "of no dataset"},
                    [&] { prepare_local(options, 1); });
  CHECK(test::folder_bytes(out) == before);
  CHECK(somebodys_own(out, true) == "tokenizer.model");
  CHECK_FALSE(somebodys_own(out, false));  // it is the one to use
  for (const char* name : {"train-00000.tokens", "test.text.tsv", "manifest.json"}) {
    CAPTURE(name);
    const std::string other = folder / name + ".out";
    make_folder(other);
    folder.write(name + std::string(".out/") + name, "{}");
    auto into = options;
    into.out = other;
    test::check_error(ErrorKind::usage, {name, "of no dataset", "--overwrite"},
                      [&] { prepare_local(into, 1); });
    into.overwrite = true;
    prepare_local(into, 1);
    CHECK(holds_dataset(other));
  }
}

TEST_CASE("a folder under the name of a dataset's file is refused before anything is replaced") {
  const test::TemporaryFolder folder;
  const std::string out = folder / "out";
  auto options = aligned_options(folder, out, "english", "french");
  prepare_local(options, 1);
  std::filesystem::remove(out + "/valid.text.tsv");
  make_folder(out + "/valid.text.tsv/somebody's own");
  options.overwrite = true;
  test::check_error(ErrorKind::usage, {"valid.text.tsv", "of no dataset"},
                    [&] { prepare_local(options, 1); });
  CHECK(std::filesystem::exists(out + "/manifest.json"));
  CHECK(std::filesystem::exists(out + "/train.packs"));
}

TEST_CASE("a dataset takes the place of another, whose other files go") {
  const test::TemporaryFolder folder;
  const std::string out = folder / "out";
  auto options = aligned_options(folder, out, "english", "french");
  prepare_local(options, 1);
  folder.write("out/train-00099.tokens", "of the old one");
  folder.write("out/notes", "somebody's own");
  options.overwrite = true;
  prepare_local(options, 1);
  CHECK(holds_dataset(out));
  CHECK_FALSE(std::filesystem::exists(out + "/train-00099.tokens"));
  CHECK(std::filesystem::exists(out + "/notes"));
  CHECK_FALSE(std::filesystem::exists(out + "/.work"));
}

TEST_CASE("a work folder that a killed run has left is emptied, and another is refused") {
  const test::TemporaryFolder folder;
  const std::string out = folder / "out";
  make_folder(out + "/.work/apt/lists");
  make_folder(out + "/.work/dataset");
  folder.write("out/.work/dataset/train-00000.tokens", "half of one");
  folder.write("out/.work/scratch-abcdef", "some bytes");
  {
    const WorkFolder work(out);
    CHECK(test::folder_bytes(work.path()) == std::map<std::string, std::string>{{"dataset", "(a folder)"}});
    CHECK(std::filesystem::is_empty(work.new_dataset()));
  }
  CHECK_FALSE(std::filesystem::exists(out + "/.work"));

  const auto refused = [&] {
    test::check_error(ErrorKind::usage, {out, ".work", "move it away"}, [&] { const WorkFolder work(out); });
  };
  make_folder(out + "/.work");
  folder.write("out/.work/notes", "somebody's own");
  refused();
  CHECK(read_file(out + "/.work/notes") == "somebody's own");
  std::filesystem::remove_all(out + "/.work");
  folder.write("out/.work", "somebody's own");
  refused();
  CHECK(read_file(out + "/.work") == "somebody's own");
}
