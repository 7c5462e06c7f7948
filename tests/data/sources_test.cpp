#include "data/sources.hpp"

#include <unistd.h>

#include "tests/data/support.hpp"

using namespace troupe;
using namespace troupe::data;
using Documents = std::vector<RawDocument>;

namespace {

Documents read_all(DocumentSource& source) {
  Documents all;
  for (RawDocument document; source.next(&document); document = {}) all.push_back(document);
  return all;
}

Documents read_all(const SourceOptions& options) {
  const auto source = open_source(options, "", {});
  const Documents first = read_all(*source);
  source->rewind();
  const Documents second = read_all(*source);
  REQUIRE(first.size() == second.size());
  for (size_t i = 0; i < first.size(); ++i) {
    CHECK(first[i].source == second[i].source);
    CHECK(first[i].target == second[i].target);
    CHECK(first[i].label == second[i].label);
  }
  return first;
}

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("aligned files give a pair a line") {
  const test::TemporaryFolder folder;
  SourceOptions options;
  options.source_path = folder.write("a", "\xEF\xBB\xBFone\r\n\ntwo three");
  options.target_path = folder.write("b", "un\n\ndeux trois\n");
  const Documents documents = read_all(options);
  REQUIRE(documents.size() == 3);
  CHECK(documents[0].source == Lines{"one"});
  CHECK(documents[0].target == Lines{"un"});
  CHECK(documents[1].source == Lines{""});
  CHECK(documents[2].target == Lines{"deux trois"});
}

TEST_CASE("lines are read whole whatever the buffer's border") {
  const test::TemporaryFolder folder;
  std::string text;
  Lines lines;
  for (size_t i = 0; i < 300; ++i) lines.push_back(std::string(i * 37 % 5000, char('a' + i % 26)));
  for (const auto& line : lines) text += line + "\n";
  SourceOptions options;
  options.source_path = options.target_path = folder.write("long", text);
  const Documents documents = read_all(options);
  REQUIRE(documents.size() == lines.size());
  for (size_t i = 0; i < lines.size(); ++i) CHECK(documents[i].source[0] == lines[i]);
}

TEST_CASE("TSV columns are chosen by number") {
  const test::TemporaryFolder folder;
  SourceOptions options;
  options.kind = SourceKind::tsv;
  options.source_path = folder.write("t", "7\tun\tgood\tone\n\n8\tdeux\tbad\ttwo\n");
  options.tsv_source_column = 4;
  options.tsv_target_column = 2;
  options.tsv_label_column = 3;
  const Documents documents = read_all(options);
  REQUIRE(documents.size() == 3);
  CHECK(documents[0].source == Lines{"one"});
  CHECK(documents[0].target == Lines{"un"});
  CHECK(documents[2].label == "bad");
  options.tsv_source_column = 5;
  test::check_error(ErrorKind::file, {options.source_path + ":1", "4 columns", "column 5"},
                    [&] { read_all(options); });
  options.tsv_source_column = 0;
  test::check_error(ErrorKind::usage, {"column 0"}, [&] { read_all(options); });
}

TEST_CASE("plain text: blank lines end documents, lines are joined, endless ones are cut") {
  const test::TemporaryFolder folder;
  SourceOptions options;
  options.kind = SourceKind::text;
  options.source_path = folder.write("t", "\n\none\ntwo\n \t\n\nthree\n");
  const Documents documents = read_all(options);
  REQUIRE(documents.size() == 2);
  CHECK(documents[0].target == Lines{"one two"});
  CHECK(documents[1].target == Lines{"three"});
  std::string endless;
  for (int i = 0; i < 30'000; ++i) endless += "a line without a blank\n";
  options.source_path = folder.write("endless", endless);
  const Documents cut = read_all(options);
  CHECK(cut.size() > 5);
  size_t bytes = 0;
  for (const auto& document : cut) {
    CHECK(document.target[0].size() < 70'000);
    bytes += document.target[0].size() + 1;
  }
  CHECK(bytes == endless.size());
}

TEST_CASE("what can be read but once is refused") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  SourceOptions options;
  options.kind = SourceKind::text;
  options.source_path = "/proc/self/fd/" + std::to_string(ends[0]);
  test::check_error(ErrorKind::file, {options.source_path, "no plain file"},
                    [&] { open_source(options, "", {}); });
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("bad text is an error that names file and line, or is skipped and counted") {
  const test::TemporaryFolder folder;
  SourceOptions options;
  options.source_path = folder.write("a", "one\nna\xefve\nthree\n");
  options.target_path = folder.write("b", "un\nnaïf\ntrois\n");
  test::check_error(ErrorKind::file, {options.source_path + ":2", "byte 3", "UTF-8"},
                    [&] { read_all(options); });
  options.skip_invalid_utf8 = true;
  const auto source = open_source(options, "", {});
  const Documents pairs = read_all(*source);
  REQUIRE(pairs.size() == 3);  // the third keeps its number
  CHECK(pairs[1].source.empty());
  CHECK(pairs[1].target.empty());
  CHECK(pairs[2].source == Lines{"three"});
  CHECK(source->dropped() == Counts{{"lines_not_utf8", 1}});

  options.line_bytes_max = 100;
  options.source_path = folder.write("c", "one\ntwo\n" + std::string(101, 'x') + "\n");
  test::check_error(ErrorKind::file, {options.source_path + ":3", "100 bytes"}, [&] { read_all(options); });
  options.source_path = folder.write("returns", "one\rtwo\rthree\r");
  test::check_error(ErrorKind::file, {options.source_path, "carriage return alone"},
                    [&] { read_all(options); });
  options.source_path = folder.write("d", "one\ntwo\n");
  test::check_error(ErrorKind::file, {options.source_path, options.target_path, "line 2"},
                    [&] { read_all(options); });
  options.source_path = folder / "nowhere";
  test::check_error(ErrorKind::file, {"nowhere", "No such file"}, [&] { read_all(options); });
  options.source_path = folder.path();
  test::check_error(ErrorKind::file, {folder.path(), "folder"}, [&] { read_all(options); });
  options.source_path = "";
  test::check_error(ErrorKind::usage, {"no file"}, [&] { read_all(options); });
}

TEST_CASE("a line that is skipped ends no document, and is no empty pair") {
  const test::TemporaryFolder folder;
  SourceOptions options;
  options.skip_invalid_utf8 = true;
  options.kind = SourceKind::text;
  options.source_path = folder.write("text", "one\nna\xefve\nthree\n\nfour\n");
  const Documents text = read_all(options);
  REQUIRE(text.size() == 2);
  CHECK(text[0].target == Lines{"one three"});
  CHECK(text[1].target == Lines{"four"});

  options.kind = SourceKind::tsv;
  options.tsv_label_column = 3;
  options.source_path = folder.write("tsv", "one\tun\tgood\nna\xefve\tna\tbad\nthree\ttrois\tgood\n");
  const Documents pairs = read_all(options);
  REQUIRE(pairs.size() == 3);
  CHECK(pairs[1].label.empty());
  CHECK(pairs[1].source.empty());
  CHECK(pairs[1].target.empty());
  CHECK(pairs[2].target == Lines{"trois"});
}

namespace {

// A folder as apt keeps it, with three packages.
void write_lists(const test::TemporaryFolder& folder) {
  folder.write(
      "mirror_dists_test_main_binary-amd64_Packages",
      "Package: ant\nVersion: 1\nSection: games\n\nPackage: bee\nSection: utils\nInstalled-Size: 3\n");
  folder.write(
      "mirror_dists_test_main_i18n_Translation-en",
      "Package: ant\nDescription-md5: 11\nDescription-en: small black insect\n It walks in a\n line.\n .\n"
      " It carries:\n  * leaves,\n  * crumbs\n    of bread.\n\n"
      "Package: bee\nDescription-md5: 22\nDescription-en: flies\n It makes honey.\n .\n It stings.\n\n"
      "Package: bee2\nDescription-md5: 22\nDescription-en: flies\n It makes honey.\n\n"
      "Package: cat\nDescription-md5: 33\nDescription-en: purrs\n");
  folder.write(
      "mirror_dists_test_main_i18n_Translation-fr",
      "Package: bee\nDescription-md5: 22\nDescription-fr: vole\n Elle fait du miel et pique.\n\n"
      "Package: ant\nDescription-md5: 11\nDescription-fr: petit insecte noir\n Elle marche en ligne.\n .\n"
      " Elle porte :\n – des feuilles,\n – des miettes de pain.\n");
}

}  // namespace

TEST_CASE("Debian descriptions: paired by checksum, unwrapped, paragraphs aligned, labelled by section") {
  const test::TemporaryFolder folder;
  write_lists(folder);
  SourceOptions options;
  options.kind = SourceKind::debian;
  options.apt_lists = folder.path();
  options.source_language = "en";
  options.target_language = "fr";
  const auto source = open_source(options, "", {});
  CHECK(source->kind() == DatasetKind::pairs);
  const Documents documents = read_all(*source);
  REQUIRE(documents.size() == 2);
  CHECK(documents[0].label == "games");
  CHECK(documents[0].source ==
        Lines{"small black insect", "It walks in a line.", "It carries:", "leaves,", "crumbs of bread."});
  CHECK(documents[0].target == Lines{"petit insecte noir", "Elle marche en ligne.",
                                     "Elle porte :", "des feuilles,", "des miettes de pain."});
  CHECK(documents[1].label == "utils");
  CHECK(documents[1].source == Lines{"flies"});  // the bodies have two paragraphs and one
  CHECK(documents[1].target == Lines{"vole"});
  CHECK(source->dropped() == Counts{{"descriptions_not_aligned", 1}});

  options.source_language = "";
  options.target_language = "en";
  const Documents text = read_all(options);
  REQUIRE(text.size() == 3);
  CHECK(text[0].source.empty());
  CHECK(text[0].target ==
        Lines{"small black insect", "It walks in a line.", "It carries: * leaves, * crumbs of bread."});
  CHECK(text[2].target == Lines{"purrs"});
}

TEST_CASE("Debian descriptions: what is missing is said") {
  const test::TemporaryFolder folder;
  write_lists(folder);
  SourceOptions options;
  options.kind = SourceKind::debian;
  options.apt_lists = folder.path();
  options.source_language = "en";
  options.target_language = "eo";
  test::check_error(ErrorKind::file, {folder.path(), "Translation-eo"}, [&] { read_all(options); });
  options.target_language = "en";
  test::check_error(ErrorKind::usage, {"en into itself"}, [&] { read_all(options); });
  options.target_language = "../x";
  test::check_error(ErrorKind::usage, {"../x"}, [&] { read_all(options); });
  options.target_language = "fr";
  options.apt_lists = folder / "gone";
  test::check_error(ErrorKind::file, {"gone"}, [&] { read_all(options); });
}
