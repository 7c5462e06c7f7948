// manifest.json: what a dataset is, with size and SHA-256 of each of its files, and a hash of itself. Written
// last.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "data/files.hpp"
#include "data/prepare.hpp"

namespace troupe::data {

inline constexpr int kManifestVersion = 1;
inline constexpr std::string_view kManifestName = "manifest.json";
inline constexpr std::string_view kDatasetFormat = "troupe dataset";  // in it
inline constexpr std::string_view kTokenizerName = "tokenizer.model";

struct SplitManifest {
  SplitInfo info;
  std::vector<FileEntry> shards;  // token shards, in the order of the packs
  FileEntry packs;                // index: where each pack lies
  FileEntry text;                 // of held-out sets; no name: none
};

struct Manifest {
  DatasetKind kind = DatasetKind::pairs;
  std::string unit;  // "document", "sentence", "token"
  std::string source_language, target_language;
  bool compatibility_forms = false;  // the text was cleaned to NFKC; written when it was
  int32_t vocabulary = 0, pack_tokens = 0, max_length = 0;
  std::string source_checksum;  // of the raw text
  std::vector<std::string> labels;
  FileEntry tokenizer;
  std::array<SplitManifest, 3> splits;
  Counts kept, dropped;
};

std::string write_manifest(const Manifest& manifest);
// Throws Error(version) for a newer version, Error(corrupt) for anything else; `path` is named in them.
Manifest parse_manifest(std::string_view text, const std::string& path);

// All files of the dataset but the manifest itself.
std::vector<FileEntry> files_of(const Manifest& manifest);

std::string_view to_string(SampleUnit unit);

}  // namespace troupe::data
