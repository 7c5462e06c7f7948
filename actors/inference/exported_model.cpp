#include "actors/inference/exported_model.hpp"

#include <cstring>
#include <fstream>

#include "kernels/base/error.hpp"
#include "model/parameters.hpp"
#include "model/record.hpp"
#include "model/section_file.hpp"

namespace troupe::inference {

namespace fs = std::filesystem;
using kernels::DType;
using model::Parameter;

namespace {

constexpr model::FileKind kExported{"TROUPEEX", model::kRecordFormat, "exported model",
                                    "export it again from its checkpoint"};
constexpr uint64_t kAlignment = 64;

enum class Role : uint8_t { vector, table, packed_only };

// What of a parameter is kept in f32.
Role role_of(const Parameter& p) {
  if (p.kind == model::ParameterKind::embedding) return Role::table;
  return p.packed ? Role::packed_only : Role::vector;
}

uint64_t master_bytes(const Parameter& p) {
  return (uint64_t(p.rows * p.cols) * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment;
}

// The parameters of one role behind one another.
std::vector<char> gather(const model::Model& shape, const float* weights, Role role) {
  std::vector<char> bytes;
  for (const Parameter& p : shape.parameters().all()) {
    if (role_of(p) != role) continue;
    const size_t begin = bytes.size();
    bytes.resize(begin + master_bytes(p));
    std::memcpy(bytes.data() + begin, weights + p.offset, size_t(p.rows * p.cols) * sizeof(float));
  }
  return bytes;
}

DType read_type(model::SectionReader& reader) {
  const std::string type = reader.read_text("type");
  for (const DType known : {DType::f32, DType::bf16, DType::i8})
    if (type == kernels::to_string(known)) return known;
  reader.corrupt(fmt::format("its weights are \"{}\"", type));
}

// Where the section that has begun lies in the mapping.
const char* section_start(model::SectionReader& reader, const ExportedModel& exported, uint64_t bytes,
                          uint64_t expected) {
  if (bytes != expected) reader.corrupt(fmt::format("{} bytes where its model has {}", bytes, expected));
  if (reader.position() % kAlignment != 0) reader.corrupt("a section does not begin where it should");
  return exported.file.bytes().data() + reader.position();
}

}  // namespace

bool is_exported(const fs::path& path) {
  char magic[8] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  return std::memcmp(magic, kExported.magic, sizeof magic) == 0;
}

uint64_t export_model(const fs::path& path, const model::SavedWeights& saved, DType type,
                      kernels::Backend& backend) {
  const auto shape = model::make_model(saved.info.model);
  const auto* const weights = static_cast<const float*>(saved.weights.data());
  const auto stream = backend.create_stream();
  const model::PackedWeights packed =
      model::pack_weights(backend, *stream, *shape, weights, {type, kernels::Packing::inference});
  model::TrainState counters;
  counters.step = saved.step;
  counters.elements = shape->parameters().elements();
  const std::string record = model::encode_record(saved.info, counters), name(kernels::to_string(type));
  const std::vector<char> vectors = gather(*shape, weights, Role::vector);
  const std::vector<char> tables = gather(*shape, weights, Role::table);
  const uint64_t bytes = record.size() + vectors.size() + tables.size() + packed.memory.bytes();
  model::SectionWriter writer(kExported, path, bytes + 1024);
  writer.section("record", record.data(), record.size());
  writer.section("type", name.data(), name.size());
  writer.aligned_section("vectors", vectors.data(), vectors.size(), kAlignment);
  writer.aligned_section("tables", tables.data(), tables.size(), kAlignment);
  writer.aligned_section("packed", packed.memory.data(), packed.memory.bytes(), kAlignment);
  writer.finish();
  return fs::file_size(path);
}

ExportedModel open_exported(const fs::path& path, const kernels::Stream& stream) {
  ExportedModel exported;
  model::SectionReader reader(kExported, path, false);
  exported.file = data::MappedFile(path.string());
  model::TrainState counters;
  model::read_record(reader, exported.info, counters);
  exported.step = counters.step;
  exported.type = read_type(reader);
  model::ParameterTable table;
  model::describe_parameters(exported.info.model, table);
  const std::vector<Parameter>& all = table.all();
  exported.masters.resize(all.size());
  exported.packed.resize(all.size());

  const auto place_masters = [&](const char* tag, Role role) {
    uint64_t expected = 0;
    for (const Parameter& p : all) expected += role_of(p) == role ? master_bytes(p) : 0;
    const char* next = section_start(reader, exported, reader.begin_section(tag), expected);
    for (size_t i = 0; i < all.size(); ++i) {
      if (role_of(all[i]) != role) continue;
      exported.masters[i] = reinterpret_cast<const float*>(next);
      next += master_bytes(all[i]);
    }
  };
  place_masters("vectors", Role::vector);
  reader.check_section(exported.file.bytes().data());
  place_masters("tables", Role::table);
  reader.check_section();  // few of their rows will be used: read, not mapped in

  const kernels::PackedType type(exported.type, kernels::Packing::inference);
  uint64_t expected = 0;
  for (const Parameter& p : all) expected += p.packed ? stream.packed_bytes(p.rows, p.cols, type) : 0;
  const char* next = section_start(reader, exported, reader.begin_section("packed"), expected);
  for (size_t i = 0; i < all.size(); ++i) {
    if (!all[i].packed) continue;
    exported.packed[i] = {next, all[i].rows, all[i].cols, exported.type, type.packing};
    next += stream.packed_bytes(all[i].rows, all[i].cols, type);
  }
  reader.check_section(exported.file.bytes().data());
  reader.check_rest(0, 0);
  return exported;
}

}  // namespace troupe::inference
