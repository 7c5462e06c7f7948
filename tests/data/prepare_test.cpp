#include "data/prepare.hpp"

#include <set>

#include "data/clean.hpp"
#include "data/scan.hpp"
#include "data/shard.hpp"
#include "data/tiny.hpp"
#include "data/windows.hpp"
#include "kernels/base/random.hpp"
#include "tests/data/support.hpp"

using namespace troupe;
using namespace troupe::data;

namespace {

// Enough text for a dozen chunks.
PrepareOptions many_options(const std::string& out) {
  std::vector<RawDocument> documents = test::made_up_pairs(3000);
  for (int i = 0; i < 9000; ++i) {
    const std::string filler(200, char('a' + i % 26));
    documents.push_back({"filler", {filler + std::to_string(i % 4000)}, {std::to_string(i % 4000) + filler}});
  }
  auto options = test::small_options(out, std::move(documents));
  options.tokenizer_sentences = 1000;
  return options;
}

std::set<std::string> paragraphs(const Dataset& dataset, Split split) {
  std::set<std::string> all;
  for (uint64_t pack = 0; pack < dataset.packs(split); ++pack)
    for (const auto& sample : dataset.samples_of_pack(split, pack)) {
      all.insert(dataset.tokenizer().decode(sample.source));
      all.insert(dataset.tokenizer().decode(sample.target));
    }
  all.erase("");
  return all;
}

}  // namespace

TEST_CASE("the folder is the same bytes for any number of loaders and any order of shards") {
  const test::TemporaryFolder folder;
  std::map<std::string, std::string> first;
  for (const int threads : {1, 2, 3, 4, 5}) {
    const std::string out = folder / std::to_string(threads);
    prepare_local(many_options(out), threads);
    const auto bytes = test::folder_bytes(out);
    if (first.empty()) first = bytes;
    CHECK(bytes == first);
  }
  CHECK(first.size() ==
        10);  // manifest, tokenizer, three shards, three indexes, two texts; nothing left behind

  PreparePlan plan(many_options(folder / "shuffled"));
  plan.scan(2);
  const TokeniseWork work = decode_work(encode_work(plan.work()));
  std::vector<std::string> shards;
  while (const auto chunk = plan.next_chunk())
    shards.push_back(tokenise_chunk(work, plan.tokenizer(), decode_chunk(encode_chunk(*chunk))));
  CHECK(shards.size() == plan.chunks());
  CHECK(shards.size() > 4);
  const Permutation order(5, shards.size());
  for (uint64_t i = 0; i < shards.size(); ++i) {
    CHECK_FALSE(plan.complete());
    plan.add_shard(order(i), shards[order(i)]);
    plan.add_shard(order(i), shards[order(i)]);  // a repeated one changes nothing
  }
  CHECK(plan.complete());
  plan.finish();
  CHECK(test::folder_bytes(folder / "shuffled") == first);
}

TEST_CASE("a damaged or foreign shard is refused, and the right one may follow") {
  const test::TemporaryFolder folder;
  PreparePlan plan(many_options(folder / "out"));
  plan.scan(1);
  const auto first = plan.next_chunk(), second = plan.next_chunk();
  const std::string shard = tokenise_chunk(plan.work(), plan.tokenizer(), *first);
  const auto refuse = [&](const std::string& bytes) {
    test::check_error(ErrorKind::corrupt, {"shard"}, [&] { plan.add_shard(0, bytes); });
  };
  refuse("");
  refuse(shard.substr(0, shard.size() - 1));
  refuse(shard.substr(0, 40));
  std::string flipped = shard;
  flipped[shard.size() / 2] ^= 4;
  refuse(flipped);
  refuse(tokenise_chunk(plan.work(), plan.tokenizer(), *second));
  const Tokenizer other(
      train_tokenizer({.vocabulary = 280}, std::vector<std::string>{"some other text", "here"}));
  refuse(tokenise_chunk(plan.work(), other, *first));
  TokeniseWork longer = plan.work();
  longer.max_length = 1000;
  RawChunk long_chunk = *first;
  long_chunk.documents = {{"", {std::string(300, 'q')}, {std::string(300, 'z')}}};
  refuse(tokenise_chunk(longer, plan.tokenizer(), long_chunk));
  plan.add_shard(0, shard);
  std::string chunk = encode_chunk(*first);
  chunk[chunk.size() / 2] ^= 1;
  test::check_error(ErrorKind::corrupt, {"settings"},
                    [&] { decode_work(encode_work(plan.work()).substr(1)); });
  test::check_error(ErrorKind::corrupt, {"chunk"}, [&] { decode_chunk(chunk); });
}

TEST_CASE("training, validation and test share no paragraph, not even near ones") {
  const test::TemporaryFolder folder;
  auto documents = test::made_up_pairs(600);
  const auto originals = documents;
  for (const auto& document : originals) {
    documents.push_back(document);  // an exact duplicate
    documents.push_back({"", {document.source[0] + "!"}, {"Autre. " + document.target[0]}});  // a near source
    documents.push_back({"", {"Other: " + document.source[0]}, document.target});  // the same target
  }
  auto options = test::small_options(folder / "out", documents);
  options.max_length = options.pack_tokens;
  const PrepareReport report = prepare_local(options, 2);
  CHECK(report.dropped.at("duplicate") == 600);
  CHECK(report.dropped.at("like_a_held_out_one") > 0);
  const auto dataset = Dataset::open(folder / "out");
  CHECK(dataset->samples(Split::test) > 30);
  CHECK(dataset->samples(Split::valid) > 20);
  CHECK(dataset->samples(Split::test) == report.kept.at("test"));
  CHECK(dataset->samples(Split::train) == report.kept.at("train"));
  const auto groups = [&](Split split) {
    std::set<uint64_t> all;
    for (const auto& text : paragraphs(*dataset, split)) all.insert(group_hash(text));
    return all;
  };
  const auto train = groups(Split::train), valid = groups(Split::valid), test = groups(Split::test);
  for (const uint64_t group : test) {
    CHECK(train.count(group) == 0);
    CHECK(valid.count(group) == 0);
  }
  for (const uint64_t group : valid) CHECK(train.count(group) == 0);
  const auto texts = dataset->texts(Split::test);
  CHECK(texts.size() == dataset->samples(Split::test));
  for (const auto& text : texts) {
    const RawDocument& document = documents[text.id >> 16];
    CHECK(text.source == document.source[0]);
    CHECK(text.target == document.target[0]);
    CHECK(text.label == document.label);
  }
}

TEST_CASE("what is left out is counted by its reason") {
  const test::TemporaryFolder folder;
  auto documents = test::made_up_pairs(100);
  documents.push_back({"", {""}, {"vide"}});
  documents.push_back({"", {"a"}, {"b"}});
  documents.push_back({"", {std::string(2001, 'x')}, {std::string(2001, 'y')}});
  documents.push_back({"", {"short one"}, {std::string(80, 'y')}});
  documents.push_back({"", {"the same"}, {"the same"}});
  documents.push_back({"", {std::string(150, 'Z')}, {std::string(150, 'Q')}});
  const PrepareReport report = prepare_local(test::small_options(folder / "out", documents), 1);
  CHECK(report.dropped == Counts{{"empty", 1},
                                 {"too_short", 1},
                                 {"too_long", 1},
                                 {"length_ratio", 1},
                                 {"identical_sides", 1},
                                 {"too_many_tokens", 1}});
  CHECK(report.kept.at("documents") == 106);
  CHECK(report.text().find("length ratio 1") != std::string::npos);
}

TEST_CASE("a line that is not UTF-8 is left out for that alone") {
  const test::TemporaryFolder folder;
  std::string lines = "na\xefve\tsimple\n";
  for (const RawDocument& document : test::made_up_pairs(100))
    lines += document.source[0] + "\t" + document.target[0] + "\n";
  auto options = test::small_options(folder / "out", {});
  options.source.kind = SourceKind::tsv;
  options.source.source_path = folder.write("pairs.tsv", lines);
  options.source.skip_invalid_utf8 = true;
  CHECK(prepare_local(options, 1).dropped == Counts{{"lines_not_utf8", 1}});
}

TEST_CASE("sentences are samples where both sides have as many") {
  const test::TemporaryFolder folder;
  auto documents = test::made_up_pairs(100);
  documents.push_back({"", {"One is here. Two is there."}, {"Un est ici. Deux est là."}});
  documents.push_back({"", {"Three came. Four left."}, {"Trois vint et quatre partit."}});
  auto options = test::small_options(folder / "out", documents);
  options.unit = SampleUnit::sentence;
  options.valid_samples = options.test_samples = 0;
  prepare_local(options, 1);
  const auto dataset = Dataset::open(folder / "out");
  const auto all = paragraphs(*dataset, Split::train);
  for (const std::string text :
       {"One is here.", "Deux est là.", "Three came. Four left.", "Trois vint et quatre partit."})
    CHECK(all.count(text) == 1);
  CHECK(dataset->samples(Split::test) == 0);
  CHECK(dataset->packs(Split::valid) == 0);
}

TEST_CASE("labels that name each document are refused") {
  const test::TemporaryFolder folder;
  std::vector<RawDocument> documents;
  for (int i = 0; i <= 65536; ++i) {
    const std::string word = std::to_string(i * 7919LL % 1'000'003);
    documents.push_back({"id" + std::to_string(i), {"say " + word}, {"dire " + word}});
  }
  const auto prepare = [&] { prepare_local(test::small_options(folder / "out", documents), 1); };
  test::check_error(ErrorKind::usage, {"65536 different labels", "--tsv-label-column"}, prepare);
  documents.back().label = documents.front().label;
  CHECK_NOTHROW(prepare());
}

TEST_CASE("running text is cut into windows that train every token once") {
  std::vector<std::vector<int32_t>> windows;
  WindowCutter cutter(4, 2, 3, [&](uint64_t, uint32_t, std::span<const int32_t> tokens) {
    windows.emplace_back(tokens.begin(), tokens.end());
  });
  cutter.add(0, 0, std::vector<int32_t>{10, 11, 12});
  cutter.add(1, 0, std::vector<int32_t>{});
  cutter.add(2, 0, std::vector<int32_t>{13, 14});
  cutter.finish();
  CHECK(windows == std::vector<std::vector<int32_t>>{{2, 10, 11, 12, 3}, {3, 2, 3, 2, 13}, {13, 14, 3}});

  const test::TemporaryFolder folder;
  std::string text;
  for (const auto& document : test::made_up_pairs(500)) text += document.source[0] + "\n\n";
  auto options = test::small_options(folder / "out", {});
  options.source.kind = SourceKind::text;
  options.source.source_path = folder.write("text", text);
  test::check_error(ErrorKind::usage, {"windows", "pairs"}, [&] {
    auto pairs = test::small_options(folder / "pairs", test::made_up_pairs(50));
    pairs.unit = SampleUnit::token;
    prepare_local(pairs, 1);
  });
  options.unit = SampleUnit::token;
  prepare_local(options, 2);
  const auto dataset = Dataset::open(folder / "out");
  CHECK(dataset->kind() == DatasetKind::text);
  uint64_t trained = 0;
  for (uint64_t pack = 0; pack < dataset->packs(Split::train); ++pack) {
    const Batch batch = dataset->batch_of_pack(Split::train, pack);
    CHECK(batch.source.rows == 0);
    CHECK(batch.target_in.cols <= 64);
    trained += uint64_t(batch.target_tokens);
    for (int32_t row = 0; row < batch.target_in.rows; ++row)
      for (int32_t t = 0; t + 1 < batch.target_in.lengths[size_t(row)]; ++t) {
        const auto at = size_t(row * batch.target_in.cols + t);
        CHECK(batch.target_out[at] == batch.target_in.ids[at + 1]);
      }
  }
  CHECK(trained == dataset->info(Split::train).target_tokens);
}

TEST_CASE(
    "texts longer than the tokenizer's training takes are cut for it, at spaces or between characters") {
  std::string words, characters;
  for (int i = 0; words.size() < 30'000; ++i) words += (i == 0 ? "" : " ") + std::to_string(i * i);
  while (characters.size() < 30'000) characters += "猫";
  TokeniseWork work;
  work.kind = DatasetKind::text;
  work.unit = SampleUnit::token;
  const auto pieces = [&](const std::string& text) {
    RawChunk chunk;
    chunk.documents.push_back({"", {}, {text}});
    std::vector<std::string> all;
    for (auto& [hash, piece] : scan_chunk(work, chunk, true).sentences) {
      CHECK(piece.size() <= kTrainingSentenceMax);
      CHECK(find_invalid_utf8(piece) == std::string::npos);
      all.push_back(std::move(piece));
    }
    return all;
  };
  const auto join = [](const std::vector<std::string>& all, std::string_view with) {
    return fmt::format("{}", fmt::join(all, with));
  };
  CHECK(pieces(words).size() == 4);
  CHECK(join(pieces(words), " ") == words);
  CHECK(pieces(characters).size() == 4);
  CHECK(join(pieces(characters), "") == characters);

  const test::TemporaryFolder folder;
  auto options = test::small_options(folder / "out", {{"", {}, {words}}});
  options.unit = SampleUnit::token;
  options.clean.characters_max = UINT32_MAX;
  options.max_length = options.pack_tokens = 32;
  prepare_local(options, 1);
  const auto dataset = Dataset::open(folder / "out");
  CHECK(dataset->samples(Split::train) > 100);  // windows of one document
  std::set<uint64_t> ids;
  for (uint64_t pack = 0; pack < dataset->packs(Split::train); ++pack)
    for (const uint64_t id : dataset->sample_ids(Split::train, pack)) ids.insert(id);
  CHECK(ids.size() == dataset->samples(Split::train));
}

TEST_CASE("the form of the text is written down where it is not the usual one") {
  const test::TemporaryFolder folder;
  for (const bool nfkc : {false, true}) {
    auto options = test::small_options(folder / (nfkc ? "nfkc" : "nfc"), test::made_up_pairs(50));
    options.clean.compatibility_forms = nfkc;
    prepare_local(options, 1);
    CHECK(Dataset::open(options.out)->compatibility_forms() == nfkc);
    const std::string manifest = read_file(options.out + "/manifest.json");
    CHECK((manifest.find("compatibility_forms") != std::string::npos) == nfkc);
  }
}

TEST_CASE("impossible options and corpora without text are refused with the way out") {
  const test::TemporaryFolder folder;
  const auto with = [&](auto change) {
    PrepareOptions options = test::small_options(folder / "out", test::made_up_pairs(50));
    change(options);
    return [options] { prepare_local(options, 1); };
  };
  using O = PrepareOptions&;
  test::check_error(ErrorKind::usage, {"no folder"}, with([](O o) { o.out = ""; }));
  test::check_error(ErrorKind::usage, {"packs of 32", "64"}, with([](O o) { o.pack_tokens = 32; }));
  test::check_error(ErrorKind::usage, {"length of 2"}, with([](O o) { o.max_length = 2; }));
  test::check_error(ErrorKind::usage, {"ratio of 0.5"}, with([](O o) { o.clean.length_ratio_max = 0.5; }));
  test::check_error(ErrorKind::usage, {"3000 to 2000"}, with([](O o) { o.clean.characters_min = 3000; }));
  test::check_error(ErrorKind::usage, {"2000000"}, with([](O o) { o.test_samples = 2'000'000; }));
  test::check_error(ErrorKind::usage, {"\"../x\" as a language"},
                    with([](O o) { o.source.target_language = "../x"; }));
  test::check_error(ErrorKind::usage, {"on 0 sentences"}, with([](O o) { o.tokenizer_sentences = 0; }));
  test::check_error(ErrorKind::usage, {"shards of 10"}, with([](O o) { o.shard_bytes_max = 10; }));
  test::check_error(ErrorKind::file, {"none.model"}, with([](O o) { o.tokenizer_file = "none.model"; }));
  test::check_error(ErrorKind::file, {"no usable text", "0 documents"},
                    with([](O o) { o.source.documents.clear(); }));
  test::check_error(ErrorKind::file, {"no usable text", "empty 1"}, with([](O o) {
                      o.source.documents = {{"", {" "}, {"\t"}}};
                    }));
  test::check_error(ErrorKind::usage, {"0 threads"},
                    [&] { prepare_local(test::small_options(folder / "out", test::made_up_pairs(50)), 0); });
  CHECK_FALSE(std::filesystem::exists(folder / "out"));  // nothing half-made is left

  const auto options = test::small_options(folder / "out", test::made_up_pairs(50));
  prepare_local(options, 1);
  const auto before = test::folder_bytes(folder / "out");
  test::check_error(ErrorKind::usage, {folder / "out", "--overwrite"}, [&] { prepare_local(options, 1); });
  CHECK(test::folder_bytes(folder / "out") == before);
  auto again = test::small_options(folder / "out", test::made_up_pairs(60));
  again.overwrite = true;
  const PreparePlan busy(again);
  test::check_error(ErrorKind::usage, {"another troupe prepare"}, [&] { prepare_local(again, 1); });
  // Whether a dataset is there is asked when nobody can put one there any more.
  test::check_error(ErrorKind::usage, {"another troupe prepare"}, [&] { prepare_local(options, 1); });
}

TEST_CASE("a dataset stays as it is until a whole new one takes its place") {
  const test::TemporaryFolder folder;
  const std::string out = folder / "out";
  auto old = test::small_options(out, test::made_up_pairs(700));
  old.shard_bytes_max = 16'384;  // several shards, none of which may stay
  prepare_local(old, 1);
  folder.write("out/notes", "not of the dataset");
  const auto before = test::folder_bytes(out);

  auto options = test::small_options(out, test::made_up_pairs(60));
  options.overwrite = true;
  const auto stop = [](const PrepareProgress& progress) {
    if (progress.phase == "write") throw error(ErrorKind::cancelled, "stopped");
  };
  test::check_error(ErrorKind::cancelled, {"stopped"}, [&] { prepare_local(options, 1, stop); });
  CHECK(test::folder_bytes(out) == before);
  const auto stop_late = [&out](const std::string& there, const std::string& not_yet) {
    return [made = out + "/.work/dataset/", there, not_yet](const PrepareProgress& progress) {
      if (progress.phase == "write" && std::filesystem::exists(made + there) &&
          !std::filesystem::exists(made + not_yet))
        throw error(ErrorKind::cancelled, "stopped");
    };
  };
  for (const auto& late :
       {stop_late("train-00000.tokens", "test.packs"), stop_late("manifest.json", "more")}) {
    test::check_error(ErrorKind::cancelled, {"stopped"}, [&] { prepare_local(options, 1, late); });
    CHECK(test::folder_bytes(out) == before);
  }

  auto nothing = options;  // all samples are too long
  nothing.max_length = 4;
  for (RawDocument& document : nothing.source.documents) {
    document.source[0] += " and more and more";
    document.target[0] += " et encore et encore";
  }
  test::check_error(ErrorKind::file, {"no training text is left of 60"}, [&] { prepare_local(nothing, 1); });
  CHECK(test::folder_bytes(out) == before);
  nothing.out = folder / "fresh";
  test::check_error(ErrorKind::file, {"no training text is left"}, [&] { prepare_local(nothing, 1); });
  CHECK_FALSE(std::filesystem::exists(nothing.out));

  prepare_local(options, 1);
  options.out = folder / "new";
  prepare_local(options, 1);
  auto after = test::folder_bytes(out);
  CHECK(after.erase("notes") == 1);
  CHECK(after == test::folder_bytes(folder / "new"));
}

TEST_CASE("a source that changes between the passes is noticed") {
  const test::TemporaryFolder folder;
  PrepareOptions options = test::small_options(folder / "out", {});
  options.source.kind = SourceKind::text;
  options.source.source_path = folder.write("text", "one line\n\nanother line\n\nand a third\n");
  PreparePlan plan(options);
  plan.scan(1);
  folder.write("text", "one line\n\nanother thing\n\nand a third\n");
  test::check_error(ErrorKind::corrupt, {options.source.source_path, "changed"}, [&] { plan.next_chunk(); });
}

TEST_CASE("the tiny language is a pure function of its options, and its pairs are translations") {
  const auto one = make_tiny_dataset({.pairs = 500}), two = make_tiny_dataset({.pairs = 500});
  CHECK(one->digest() == two->digest());
  CHECK(make_tiny_dataset({.seed = 2, .pairs = 500})->digest() != one->digest());
  const test::TemporaryFolder folder;
  write_tiny_dataset(folder / "tiny", {.pairs = 500});
  CHECK(Dataset::open(folder / "tiny")->digest() == one->digest());
  CHECK(one->samples(Split::train) > 300);
  for (const auto& text : one->texts(Split::test))
    CHECK(std::count(text.source.begin(), text.source.end(), ' ') ==
          std::count(text.target.begin(), text.target.end(), ' '));
  CHECK(make_tiny_dataset({.pairs = 500, .language_model = true})->kind() == DatasetKind::text);
  test::check_error(ErrorKind::usage, {"tiny dataset of 1"}, [] { make_tiny_dataset({.pairs = 1}); });
}
