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

// What of each parameter is kept in f32. An output projection is of the kind of an embedding, but only as one
// is it looked up.
std::vector<Role> roles_of(const std::vector<Parameter>& all, const model::TransformerParameters& indices) {
  std::vector<Role> roles;
  for (size_t i = 0; i < all.size(); ++i) {
    const bool looked_up = i == indices.source_embedding || i == indices.target_embedding;
    if (all[i].packed && !looked_up)
      roles.push_back(Role::packed_only);
    else
      roles.push_back(all[i].kind == model::ParameterKind::embedding ? Role::table : Role::vector);
  }
  return roles;
}

uint64_t master_bytes(const Parameter& p) {
  return (uint64_t(p.rows * p.cols) * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment;
}

// The parameters of one role behind one another.
std::vector<char> gather(const model::Model& shape, const float* weights, Role role) {
  const std::vector<Parameter>& all = shape.parameters().all();
  const std::vector<Role> roles = roles_of(all, shape.indices());
  std::vector<char> bytes;
  for (size_t i = 0; i < all.size(); ++i) {
    if (roles[i] != role) continue;
    const Parameter& p = all[i];
    const size_t begin = bytes.size();
    bytes.resize(begin + master_bytes(p));
    std::memcpy(bytes.data() + begin, weights + p.offset, size_t(p.rows * p.cols) * sizeof(float));
  }
  return bytes;
}

DType read_type(model::SectionReader& reader, DType compute) {
  const std::string type = reader.read_text("type");
  for (const DType possible : {compute, DType::i8})
    if (type == kernels::to_string(possible)) return possible;
  reader.corrupt(fmt::format("its weights are \"{}\" where its model computes in {}", type,
                             kernels::to_string(compute)));
}

// Where the section that has begun lies in the mapping.
const char* section_start(model::SectionReader& reader, const ExportedModel& exported, uint64_t bytes,
                          uint64_t expected) {
  if (bytes != expected) reader.corrupt(fmt::format("{} bytes where its model has {}", bytes, expected));
  if (reader.position() % kAlignment != 0) reader.corrupt("a section does not begin where it should");
  return static_cast<const char*>(exported.file.data()) + reader.position();
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
  exported.file = reader.map();
  model::TrainState counters;
  model::read_record(reader, exported.info, counters);
  exported.step = counters.step;
  exported.type = read_type(reader, exported.info.model.compute);
  model::ParameterTable table;
  const model::TransformerParameters indices = model::describe_parameters(exported.info.model, table);
  const std::vector<Parameter>& all = table.all();
  const std::vector<Role> roles = roles_of(all, indices);
  exported.masters.resize(all.size());
  exported.packed.resize(all.size());

  const auto place_masters = [&](const char* tag, Role role) {
    uint64_t expected = 0;
    for (size_t i = 0; i < all.size(); ++i) expected += roles[i] == role ? master_bytes(all[i]) : 0;
    const uint64_t bytes = reader.begin_section(tag);
    // Older files have an output projection of its own among the tables, as the last of them.
    const bool older = role == Role::table && roles[indices.output] == Role::packed_only &&
                       bytes == expected + master_bytes(all[indices.output]);
    const char* next = section_start(reader, exported, bytes, older ? bytes : expected);
    for (size_t i = 0; i < all.size(); ++i) {
      if (roles[i] != role) continue;
      exported.masters[i] = reinterpret_cast<const float*>(next);
      next += master_bytes(all[i]);
    }
  };
  place_masters("vectors", Role::vector);
  reader.check_section(exported.file.data());
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
  reader.check_section(exported.file.data());
  reader.check_rest(0, 0);
  return exported;
}

}  // namespace troupe::inference
