#include "model/checkpoint.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <mutex>
#include <thread>

#include <doctest/doctest.h>
#include <sys/resource.h>

#include "kernels/base/hash.hpp"
#include "model/record.hpp"
#include "model/section_file.hpp"
#include "tests/model/support.hpp"

using namespace troupe;
using namespace troupe::model;
using namespace troupe::testing;
namespace fs = std::filesystem;

namespace {

struct Saved {
  std::unique_ptr<kernels::Backend> backend = make_reference_backend();
  TemporaryFolder folder;
  std::unique_ptr<Model> model = make_model(tiny_config());
  CheckpointInfo info;
  TrainState state;
  fs::path path;

  Saved() {
    const auto stream = backend->create_stream();
    state = initial_state(*backend, *stream, *model, 11);
    for (int64_t i = 0; i < state.elements; ++i) {
      state.moment1_data()[i] = float(i) * 0.5f;
      state.moment2_data()[i] = float(i) * 0.25f;
    }
    state.step = 200;
    state.updates = 198;
    state.skipped = 2;
    state.target_tokens = 123456;
    state.chain.fill(7);
    state.evaluation.record(100, {5 << 20, 4 << 20, 10, 3});
    info.model = tiny_config();
    info.optimizer.clip_norm = 0.5f;
    info.job_text = "[model]\nwidth = 16\n";
    info.tokenizer = std::string("\0\1\2tokens", 9);
    path = checkpoint_path(folder.path(), state.step, "a");
    save_checkpoint(path, info, state);
  }

  std::string read() const {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(const std::string& bytes) const { std::ofstream(path, std::ios::binary) << bytes; }

  // Where the record holds what `change` changes: one byte.
  size_t place_of(const std::function<void(CheckpointInfo&)>& change) const {
    CheckpointInfo other = info;
    change(other);
    const std::string record = encode_record(info, state), differs = encode_record(other, state);
    REQUIRE(record.size() == differs.size());
    return size_t(std::mismatch(record.begin(), record.end(), differs.begin()).first - record.begin());
  }
  // A checkpoint of the state with this record, its checksums as they should be.
  void write_record(const std::string& record, uint32_t format) const {
    const FileKind kind{"TROUPECK", format, "checkpoint", ""};
    const uint64_t bytes = uint64_t(state.elements) * sizeof(float);
    SectionWriter writer(kind, path, 0);
    writer.section("record", record.data(), record.size());
    writer.section("weights", state.weights.data(), bytes);
    writer.section("moment1", state.moment1.data(), bytes);
    writer.section("moment2", state.moment2.data(), bytes);
    writer.finish();
  }

  // The kind of error that loading throws now; the message must name the file and a remedy.
  ErrorKind refusal() const {
    try {
      load_checkpoint(path, *backend);
    } catch (const Error& e) {
      CHECK(std::string(e.what()).find(path.string()) != std::string::npos);
      return e.kind();
    }
    return ErrorKind::usage;  // loaded
  }
};

}  // namespace

TEST_CASE("a checkpoint gives back what was saved") {
  const Saved saved;
  const Checkpoint loaded = load_checkpoint(saved.path, *saved.backend);
  CHECK(loaded.info == saved.info);
  CHECK(loaded.state.step == 200);
  CHECK(loaded.state.updates == 198);
  CHECK(loaded.state.skipped == 2);
  CHECK(loaded.state.target_tokens == 123456);
  CHECK(loaded.state.evaluation == saved.state.evaluation);
  CHECK(state_digest(loaded.state) == state_digest(saved.state));
  CHECK(weights_digest(saved.model->parameters(), loaded.state.weight_data()) ==
        weights_digest(saved.model->parameters(), saved.state.weight_data()));

  const SavedWeights weights = load_weights_only(saved.path, *saved.backend);
  CHECK(weights.step == 200);
  CHECK(weights.info == saved.info);
  CHECK(std::memcmp(weights.weights.data(), saved.state.weights.data(), saved.state.weights.bytes()) == 0);
  CHECK(std::distance(fs::directory_iterator(saved.folder.path()), fs::directory_iterator()) ==
        1);  // no debris
}

TEST_CASE("the kinds of norm, positions, products and text come back from a checkpoint") {
  Saved saved;
  saved.info.model.norm_kind = kernels::NormKind::rms;
  saved.info.model.positions = Positions::rotary;
  saved.info.model.compute = kernels::DType::bf16;
  saved.info.model.products = Products::fp8;
  saved.info.compatibility_forms = true;
  saved.info.dataset = "the digest of a dataset";
  saved.model = make_model(saved.info.model);
  saved.state = first_state([&](size_t bytes) { return saved.backend->allocate(bytes); }, *saved.model, 11);
  save_checkpoint(saved.path, saved.info, saved.state);
  const Checkpoint loaded = load_checkpoint(saved.path, *saved.backend);
  CHECK(loaded.info == saved.info);
  CHECK(state_digest(loaded.state) == state_digest(saved.state));
}

TEST_CASE("checkpoints of formats 1 to 4, which knew fewer settings, are read") {
  const Saved saved;
  const std::string record = encode_record(saved.info, saved.state);
  const size_t form = saved.place_of([](CheckpointInfo&c) { c.compatibility_forms = true; }),
               products = saved.place_of([](CheckpointInfo&c) { c.model.products = Products::fp8; }),
               norm = saved.place_of([](CheckpointInfo&c) { c.model.norm_kind = kernels::NormKind::rms; });
  REQUIRE(norm < products);
  REQUIRE(products < form);
  for (const uint32_t format : {1u, 2u, 3u, 4u}) {
    CAPTURE(format);
    std::string older = record;
    older.erase(form + 1, 8);  // the empty text that names no dataset
    if (format < 4) older.erase(form, 1);
    if (format < 3) older.erase(products, 1);
    if (format < 2) older.erase(norm, 1);
    saved.write_record(older, format);
    const Checkpoint loaded = load_checkpoint(saved.path, *saved.backend);
    CHECK(loaded.info == saved.info);
    CHECK(state_digest(loaded.state) == state_digest(saved.state));
  }
}

TEST_CASE("settings that no training has are refused as a broken file, though its checksums are right") {
  const Saved saved;
  using Change = void (*)(CheckpointInfo&);
  const auto refused = [&](Change change) {
    CheckpointInfo info = saved.info;
    change(info);
    saved.write_record(encode_record(info, saved.state), kRecordFormat);
    return saved.refusal() == ErrorKind::corrupt;
  };
  CHECK_FALSE(refused([](CheckpointInfo&) {}));
  CHECK(refused([](CheckpointInfo& c) { c.model.dropout = 2; }));
  CHECK(refused([](CheckpointInfo& c) { c.optimizer.label_smoothing = 1.5f; }));
  CHECK(refused(
      [](CheckpointInfo& c) { c.optimizer.label_smoothing = std::numeric_limits<float>::quiet_NaN(); }));
  CHECK(refused([](CheckpointInfo& c) { c.optimizer.schedule.peak = -1; }));

  const Change flags[] = {[](CheckpointInfo& c) { c.model.scale_embedding = !c.model.scale_embedding; },
                          [](CheckpointInfo& c) { c.model.tied_embeddings = !c.model.tied_embeddings; },
                          [](CheckpointInfo& c) { c.compatibility_forms = !c.compatibility_forms; }};
  for (const Change flip : flags)
    for (const char byte : {'\2', '\x7f'}) {
      std::string record = encode_record(saved.info, saved.state);
      record[saved.place_of(flip)] = byte;
      saved.write_record(record, kRecordFormat);
      CHECK(saved.refusal() == ErrorKind::corrupt);
    }
}

TEST_CASE("the same state makes the same bytes") {
  const Saved saved;
  const std::string first = saved.read();
  save_checkpoint(saved.path, saved.info, saved.state.clone(*saved.backend));
  CHECK(saved.read() == first);
}

TEST_CASE("the digest of weights covers names, shapes and bytes and nothing else") {
  Saved saved;
  const auto digest = [&] { return weights_digest(saved.model->parameters(), saved.state.weight_data()); };
  const std::string before = digest();
  CHECK(before.size() == 64);
  saved.state.moment1_data()[3] += 1;
  saved.state.step += 1;
  CHECK(digest() == before);
  saved.state.weight_data()[3] += 1;
  CHECK(digest() != before);
}

TEST_CASE("a checkpoint cut at any length is refused") {
  const Saved saved;
  const std::string whole = saved.read();
  for (size_t length = 0; length < whole.size(); length += length < 600 ? 1 : 1009) {
    saved.write(whole.substr(0, length));
    CAPTURE(length);
    CHECK(saved.refusal() == ErrorKind::corrupt);
  }
  saved.write(whole + "x");
  CHECK(saved.refusal() == ErrorKind::corrupt);
}

TEST_CASE("a checkpoint with a flipped bit anywhere is refused") {
  const Saved saved;
  const std::string whole = saved.read();
  for (size_t at = 0; at < whole.size(); at += at < 700 || at + 40 > whole.size() ? 1 : 499) {
    std::string broken = whole;
    broken[at] = char(broken[at] ^ (1 << (at % 8)));
    saved.write(broken);
    CAPTURE(at);
    const ErrorKind kind = saved.refusal();
    // A flip inside the version number may make it a newer one.
    CHECK((kind == ErrorKind::corrupt || (kind == ErrorKind::version && at >= 8 && at < 12)));
  }
}

TEST_CASE("a checkpoint of a newer version is refused as such") {
  const Saved saved;
  std::string newer = saved.read();
  newer[8] = char(kRecordFormat + 1);
  saved.write(newer);
  CHECK(saved.refusal() == ErrorKind::version);
  CHECK_THROWS_WITH_AS(
      load_weights_only(saved.path, *saved.backend),
      doctest::Contains("written by a newer troupe; this one reads up to format 5: update troupe"), Error);
}

TEST_CASE("what is not a checkpoint is refused") {
  const Saved saved;
  saved.write(std::string(5000, 'x'));
  CHECK(saved.refusal() == ErrorKind::corrupt);
  saved.write("");
  CHECK(saved.refusal() == ErrorKind::corrupt);
  fs::remove(saved.path);
  CHECK(saved.refusal() == ErrorKind::file);
  fs::create_directory(saved.path);
  CHECK(saved.refusal() == ErrorKind::file);
}

TEST_CASE("weights alone are verified too") {
  const Saved saved;
  std::string broken = saved.read();
  broken[2000] = char(broken[2000] ^ 4);
  saved.write(broken);
  CHECK_THROWS_AS(load_weights_only(saved.path, *saved.backend), Error);
}

TEST_CASE("the newest whole checkpoint of a folder is found, broken ones are skipped with a warning") {
  Saved saved;
  std::vector<std::string> warnings;
  const auto warn = [&](const std::string& message) { warnings.push_back(message); };
  saved.state.step = 1000;
  const fs::path newer = checkpoint_path(saved.folder.path(), 1000, "b");
  save_checkpoint(newer, saved.info, saved.state);
  std::ofstream(saved.folder.path() / "checkpoint-notes.troupe") << "not one";
  CHECK(latest_checkpoint(saved.folder.path(), warn) == newer);
  CHECK(warnings.empty());
  fs::resize_file(newer, 3000);
  CHECK(latest_checkpoint(saved.folder.path(), warn) == saved.path);
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0].find("checkpoint-0000001000-b.troupe") != std::string::npos);
  fs::remove(newer);
  fs::remove(saved.path);
  CHECK_FALSE(latest_checkpoint(saved.folder.path(), warn).has_value());
  CHECK_THROWS_AS(latest_checkpoint(saved.folder.path() / "nowhere", warn), Error);
}

TEST_CASE("whoever looks for checkpoints is told why each newer one is of no use, newest first") {
  Saved saved;
  for (const int64_t step : {300, 400, 500})
    save_checkpoint(checkpoint_path(saved.folder.path(), step, "a"), saved.info, saved.state);
  fs::resize_file(checkpoint_path(saved.folder.path(), 400, "a"), 3000);
  saved.path = checkpoint_path(saved.folder.path(), 500, "a");
  std::string newer = saved.read();
  newer[8] = char(kRecordFormat + 1);
  saved.write(newer);
  const CheckpointsFound found = find_checkpoints(saved.folder.path());
  CHECK(found.newest == checkpoint_path(saved.folder.path(), 300, "a"));
  REQUIRE(found.passed_over.size() == 2);
  CHECK(found.passed_over[0].kind() == ErrorKind::version);
  CHECK(found.passed_over[1].kind() == ErrorKind::corrupt);
}

TEST_CASE("pruning keeps the newest steps and sweeps up what a crash left") {
  Saved saved;
  for (int64_t step : {300, 400, 500})
    for (const char* node : {"a", "b"})
      save_checkpoint(checkpoint_path(saved.folder.path(), step, node), saved.info, saved.state);
  const fs::path abandoned = saved.folder.path() / "checkpoint-0000000100-a.troupe.partial";
  std::ofstream(abandoned) << "half";
  prune_checkpoints(saved.folder.path(), 2);
  std::vector<std::string> left;
  for (const auto& entry : fs::directory_iterator(saved.folder.path()))
    left.push_back(entry.path().filename());
  std::sort(left.begin(), left.end());
  CHECK(left == std::vector<std::string>{"checkpoint-0000000400-a.troupe", "checkpoint-0000000400-b.troupe",
                                         "checkpoint-0000000500-a.troupe", "checkpoint-0000000500-b.troupe"});
}

TEST_CASE("pruning after a checkpoint keeps it, though later ones that are broken lie beside it") {
  Saved saved;
  for (int64_t step : {200, 300, 800, 900})
    save_checkpoint(checkpoint_path(saved.folder.path(), step, "a"), saved.info, saved.state);
  prune_checkpoints(saved.folder.path(), 1, 300);
  for (int64_t step : {300, 800, 900}) CHECK(fs::exists(checkpoint_path(saved.folder.path(), step, "a")));
  CHECK_FALSE(fs::exists(checkpoint_path(saved.folder.path(), 200, "a")));
}

TEST_CASE("pruning leaves alone what a node that is far behind still writes") {
  Saved saved;
  for (int64_t step : {300, 400, 500})
    save_checkpoint(checkpoint_path(saved.folder.path(), step, "a"), saved.info, saved.state);
  const FileKind kind{"TROUPECK", 1, "checkpoint", "none"};
  const fs::path path = checkpoint_path(saved.folder.path(), 1, "b");
  {
    SectionWriter writer(kind, path, 1000);
    writer.section("some", "bytes", 5);
    prune_checkpoints(saved.folder.path(), 2);
    CHECK_THROWS_WITH_AS(SectionWriter(kind, path, 1000), doctest::Contains("another process writes it"),
                         Error);
    writer.finish();
  }
  CHECK(fs::exists(path));
  prune_checkpoints(saved.folder.path(), 2);
  CHECK_FALSE(fs::exists(path));
}

TEST_CASE("a checkpoint that cannot be written leaves the old one and no debris") {
  const Saved saved;
  const std::string before = saved.read();
  CHECK_THROWS_WITH_AS(save_checkpoint(saved.folder.path() / "nowhere" / "x.troupe", saved.info, saved.state),
                       doctest::Contains("No such file or directory"), Error);
  // A limit on file sizes stands in for a full disk: writing fails half-way in the same place.
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &limit) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{8000, limit.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  CHECK_THROWS_AS(save_checkpoint(saved.path, saved.info, saved.state), Error);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(saved.read() == before);
  CHECK(std::distance(fs::directory_iterator(saved.folder.path()), fs::directory_iterator()) == 1);
}

TEST_CASE("of several that write one file, and who removes abandoned ones, none tears what bears its name") {
  const TemporaryFolder folder;
  const FileKind kind{"TROUPECK", 1, "checkpoint", "none"};
  const fs::path path = folder.path() / "x.troupe", partial = path.string() + ".partial";
  constexpr uint64_t kBytes = 20'000;
  constexpr int kFilesMax = 2000;
  const auto write = [&](char byte) {
    const std::string bytes(kBytes, byte);
    SectionWriter writer(kind, path, 0);
    writer.section("some", bytes.data(), bytes.size());
    writer.finish();
  };
  write('a');
  std::mutex mutex;
  std::vector<std::string> faults;
  std::atomic<int> files{0}, writers{2};
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  // What a lock refuses is no fault.
  const auto attempt = [&](const std::function<void()>& what) {
    try {
      what();
    } catch (const Error& reason) {
      const std::string message = reason.what();
      if (message.find("another process writes it") != std::string::npos) return;
      const std::lock_guard lock(mutex);
      faults.push_back(message);
    }
  };
  const auto write_many = [&](char byte) {
    while (files < kFilesMax && std::chrono::steady_clock::now() < end)
      attempt([&] {
        write(byte);
        ++files;
      });
    --writers;
  };
  std::thread first(write_many, 'a'), second(write_many, 'b');
  while (writers > 0) {
    attempt([&] {
      SectionReader reader(kind, path, true);
      CHECK(reader.begin_section("some") == kBytes);
      reader.check_section();
      reader.finish();
    });
    SectionWriter::remove_if_abandoned(partial);
  }
  first.join();
  second.join();
  CHECK(files.load() > 0);
  CHECK((faults.empty() ? "" : faults.front()) == "");
  CHECK_FALSE(fs::exists(partial));
}

TEST_CASE("a reader maps the file that it has opened, whichever bears its name by then") {
  const TemporaryFolder folder;
  const FileKind kind{"TROUPECK", 1, "checkpoint", "none"};
  const fs::path path = folder.path() / "x.troupe";
  const auto write = [&](const std::string& bytes) {
    SectionWriter writer(kind, path, 0);
    writer.section("some", bytes.data(), bytes.size());
    writer.finish();
  };
  write("first");
  SectionReader reader(kind, path, false);
  write("later and longer");
  REQUIRE(reader.begin_section("some") == 5);
  const kernels::Buffer mapped = reader.map();
  CHECK(std::string(static_cast<const char*>(mapped.data()) + reader.position(), 5) == "first");
  reader.check_section(mapped.data());
  reader.check_rest(0, 0);
}
