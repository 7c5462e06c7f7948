#include "data/manifest.hpp"

#include <nlohmann/json.hpp>

#include "kernels/base/error.hpp"

namespace troupe::data {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const FileEntry& file) {
  return {{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}};
}
FileEntry file_from(const Json& json) {
  FileEntry file{json.at("name"), json.at("bytes"), json.at("sha256")};
  if (file.name.empty() || file.name.find('/') != std::string::npos)
    throw std::invalid_argument("a file's name is \"" + file.name + "\"");
  return file;
}

Json to_json(const SplitManifest& split) {
  Json json = {{"samples", split.info.samples},
               {"packs", split.info.packs},
               {"source_tokens", split.info.source_tokens},
               {"target_tokens", split.info.target_tokens},
               {"source_tokens_padded", split.info.source_tokens_padded},
               {"target_tokens_padded", split.info.target_tokens_padded},
               {"shards", Json::array()},
               {"index", to_json(split.packs)}};
  for (const auto& shard : split.shards) json["shards"].push_back(to_json(shard));
  if (!split.text.name.empty()) json["text"] = to_json(split.text);
  return json;
}
SplitManifest split_from(const Json& json) {
  SplitManifest split;
  split.info = {json.at("samples"),
                json.at("packs"),
                json.at("source_tokens"),
                json.at("target_tokens"),
                json.at("source_tokens_padded"),
                json.at("target_tokens_padded")};
  for (const auto& shard : json.at("shards")) split.shards.push_back(file_from(shard));
  split.packs = file_from(json.at("index"));
  if (json.contains("text")) split.text = file_from(json.at("text"));
  return split;
}

std::string hash_of(const Json& json) {
  const std::string text = json.dump(1);
  return sha256_hex(text.data(), text.size());
}

Manifest manifest_from(const Json& json) {
  Manifest manifest;
  const std::string kind = json.at("kind");
  if (kind != "pairs" && kind != "text") throw std::invalid_argument("kind is \"" + kind + "\"");
  manifest.kind = kind == "pairs" ? DatasetKind::pairs : DatasetKind::text;
  manifest.unit = json.at("unit");
  manifest.source_language = json.at("source_language");
  manifest.target_language = json.at("target_language");
  manifest.compatibility_forms = json.value("compatibility_forms", false);
  manifest.vocabulary = json.at("vocabulary");
  manifest.pack_tokens = json.at("pack_tokens");
  manifest.max_length = json.at("max_length");
  manifest.source_checksum = json.at("source_checksum");
  manifest.labels = json.at("labels").get<std::vector<std::string>>();
  manifest.tokenizer = file_from(json.at("tokenizer"));
  for (const Split split : kSplits)
    manifest.splits[size_t(split)] = split_from(json.at("splits").at(std::string(to_string(split))));
  manifest.kept = json.at("kept").get<Counts>();
  manifest.dropped = json.at("dropped").get<Counts>();
  return manifest;
}

}  // namespace

std::string_view to_string(SampleUnit unit) {
  switch (unit) {
    case SampleUnit::document:
      return "document";
    case SampleUnit::sentence:
      return "sentence";
    case SampleUnit::token:
      return "token";
  }
  return "";
}

std::vector<FileEntry> files_of(const Manifest& manifest) {
  std::vector<FileEntry> files = {manifest.tokenizer};
  for (const SplitManifest& split : manifest.splits) {
    files.insert(files.end(), split.shards.begin(), split.shards.end());
    files.push_back(split.packs);
    if (!split.text.name.empty()) files.push_back(split.text);
  }
  return files;
}

std::string write_manifest(const Manifest& manifest) {
  Json json = {{"format", kDatasetFormat},
               {"version", kManifestVersion},
               {"kind", to_string(manifest.kind)},
               {"unit", manifest.unit},
               {"source_language", manifest.source_language},
               {"target_language", manifest.target_language},
               {"vocabulary", manifest.vocabulary},
               {"pack_tokens", manifest.pack_tokens},
               {"max_length", manifest.max_length},
               {"source_checksum", manifest.source_checksum},
               {"kept", manifest.kept},
               {"dropped", manifest.dropped},
               {"labels", manifest.labels},
               {"tokenizer", to_json(manifest.tokenizer)},
               {"splits", Json::object()}};
  if (manifest.compatibility_forms) json["compatibility_forms"] = true;
  for (const Split split : kSplits)
    json["splits"][std::string(to_string(split))] = to_json(manifest.splits[size_t(split)]);
  json["sha256_of_the_above"] = hash_of(json);
  return json.dump(1) + "\n";
}

Manifest parse_manifest(std::string_view text, const std::string& path) {
  constexpr std::string_view advice = "copy the dataset again, or make it anew with troupe prepare";
  try {
    Json json = Json::parse(text);
    if (json.at("format") != kDatasetFormat) throw std::invalid_argument("its format is another");
    const int version = json.at("version");
    if (version > kManifestVersion)
      throw error(
          ErrorKind::version,
          "cannot read {}: it was written by a newer troupe (version {}; this one reads up to {}); update "
          "troupe, or make the dataset anew with troupe prepare",
          path, version, kManifestVersion);
    const std::string hash = json.at("sha256_of_the_above");
    json.erase("sha256_of_the_above");
    if (version < 1 || hash != hash_of(json)) throw std::invalid_argument("its own hash does not match");
    return manifest_from(json);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& reason) {
    throw error(ErrorKind::corrupt, "cannot read {}: it is not a whole manifest ({}); {}", path,
                reason.what(), advice);
  }
}

}  // namespace troupe::data
