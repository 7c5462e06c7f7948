#include "actors/inference/exported_model.hpp"

#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "kernels/cpu/backend.hpp"
#include "kernels/scratch.hpp"
#include "model/generate.hpp"
#include "model/parameters.hpp"
#include "model/record.hpp"
#include "model/section_file.hpp"
#include "tests/support/process.hpp"

using namespace troupe;
using kernels::DType;

namespace {

constexpr model::FileKind kKind{"TROUPEEX", model::kRecordFormat, "exported model", ""};
constexpr uint64_t kAlignment = 64;

// A model of random weights, whose output projection is a matrix of its own, and a file for it.
struct Untied {
  test::TemporaryFolder folder;
  std::string path = folder / "exported";
  std::unique_ptr<kernels::Backend> backend = kernels::make_cpu_backend();
  std::unique_ptr<kernels::Stream> stream = backend->create_stream();
  std::unique_ptr<model::Model> shape;
  model::SavedWeights saved;

  Untied() {
    model::ModelConfig& config = saved.info.model;
    config.vocabulary = 50;
    config.width = 18;  // its tables are no multiples of 64 bytes
    config.inner = 24;
    config.heads = 2;
    config.encoder_layers = 1;
    config.decoder_layers = 1;
    config.max_length = 32;
    config.compute = DType::f32;
    config.tied_embeddings = false;
    shape = model::make_model(config);
    saved.weights = model::first_state(kernels::allocate_host, *shape, 3).weights;
  }

  const float* weights() const { return static_cast<const float*>(saved.weights.data()); }
  void write(DType type) const { inference::export_model(path, saved, type, *backend); }
  inference::ExportedModel open() const { return inference::open_exported(path, *stream); }

  std::vector<std::vector<model::Hypothesis>> translate(const model::WeightsView& view) const {
    model::GenerateOptions options;
    options.beam = 2;
    options.n_best = 2;
    const std::vector<std::vector<int32_t>> inputs{{5, 6, 7}, {}, {8, 9, 10, 11, 12, 13, 14}};
    return model::Generator(*backend, *shape, view, options).generate(inputs, 1);
  }

  // That what has been exported translates to the bits that the weights themselves do.
  void check_translations(const inference::ExportedModel& exported) const {
    const kernels::PackedType type(exported.type, kernels::Packing::inference);
    const model::PackedWeights packed = model::pack_weights(*backend, *stream, *shape, weights(), type);
    const auto expected = translate({weights(), &packed.views}), got = translate(exported.weights());
    REQUIRE(got.size() == expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      REQUIRE(got[i].size() == expected[i].size());
      for (size_t n = 0; n < got[i].size(); ++n) {
        CHECK(got[i][n].tokens == expected[i][n].tokens);
        CHECK(got[i][n].log_probability == expected[i][n].log_probability);
      }
    }
  }
};

// What a file holds, section by section.
struct Sections {
  std::string record, type, vectors, tables, packed;
};

Sections read_sections(const std::string& path) {
  model::SectionReader reader(kKind, path, true);
  Sections sections;
  sections.record = reader.read_text("record");
  sections.type = reader.read_text("type");
  sections.vectors = reader.read_text("vectors");
  sections.tables = reader.read_text("tables");
  sections.packed = reader.read_text("packed");
  reader.finish();
  return sections;
}

void write_sections(const std::string& path, const Sections& sections) {
  model::SectionWriter writer(kKind, path, 0);
  writer.section("record", sections.record.data(), sections.record.size());
  writer.section("type", sections.type.data(), sections.type.size());
  writer.aligned_section("vectors", sections.vectors.data(), sections.vectors.size(), kAlignment);
  writer.aligned_section("tables", sections.tables.data(), sections.tables.size(), kAlignment);
  writer.aligned_section("packed", sections.packed.data(), sections.packed.size(), kAlignment);
  writer.finish();
}

}  // namespace

TEST_CASE("an output projection that is no embedding is exported in its packed form alone") {
  const Untied untied;
  const model::TransformerParameters& indices = untied.shape->indices();
  for (const DType type : {DType::f32, DType::i8}) {
    CAPTURE(kernels::to_string(type));
    untied.write(type);
    const inference::ExportedModel exported = untied.open();
    CHECK(exported.type == type);
    CHECK(exported.masters[indices.output] == nullptr);
    CHECK(exported.masters[indices.source_embedding] != nullptr);
    CHECK(exported.masters[indices.target_embedding] != nullptr);
    untied.check_translations(exported);
  }
}

TEST_CASE("an older exported file, which has the output projection among its tables, is opened as well") {
  const Untied untied;
  untied.write(DType::f32);
  Sections sections = read_sections(untied.path);
  const auto& output = untied.shape->parameters().all()[untied.shape->indices().output];
  sections.tables.append(reinterpret_cast<const char*>(untied.weights() + output.offset),
                         size_t(output.rows * output.cols) * sizeof(float));
  sections.tables.resize((sections.tables.size() + kAlignment - 1) / kAlignment * kAlignment);
  write_sections(untied.path, sections);
  untied.check_translations(untied.open());
  sections.tables.resize(sections.tables.size() + kAlignment);
  write_sections(untied.path, sections);
  CHECK_THROWS_WITH_AS(untied.open(), doctest::Contains("bytes where its model has"), Error);
}

TEST_CASE("an exported file of another type than its model computes in is refused as a broken one") {
  const Untied untied;
  untied.write(DType::bf16);
  CHECK_THROWS_WITH_AS(untied.open(),
                       doctest::Contains("its weights are \"bf16\" where its model computes in f32; export "
                                         "it again from its checkpoint"),
                       Error);
}
