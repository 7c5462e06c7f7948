#include "data/repair.hpp"

#include <filesystem>

#include "data/manifest.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/sync_folder.hpp"

namespace troupe::data {

namespace {

std::string in_folder(const std::string& folder, std::string_view name) {
  return folder + "/" + std::string(name);
}

bool is_whole(const std::string& path, const FileEntry& entry) {
  try {
    const MappedFile file(path);
    const std::string_view bytes = file.bytes();
    if (entry.name == kManifestName) return parse_manifest(bytes, path), true;
    return bytes.size() == entry.bytes && sha256_hex(bytes.data(), bytes.size()) == entry.sha256;
  } catch (const Error& problem) {
    if (problem.kind() == ErrorKind::version) throw;
    return false;
  }
}

}  // namespace

std::vector<FileEntry> lacking_files(const std::string& folder) {
  const FileEntry manifest{std::string(kManifestName), 0, ""};
  const std::string path = in_folder(folder, kManifestName);
  if (!is_whole(path, manifest)) return {manifest};
  std::vector<FileEntry> lacking;
  for (const FileEntry& file : files_of(parse_manifest(read_file(path), path)))
    if (!is_whole(in_folder(folder, file.name), file)) lacking.push_back(file);
  return lacking;
}

std::vector<std::string> file_names(const std::string& folder) {
  const std::string path = in_folder(folder, kManifestName);
  std::vector<std::string> names = {std::string(kManifestName)};
  for (const FileEntry& file : files_of(parse_manifest(read_file(path), path))) names.push_back(file.name);
  return names;
}

bool adopt_file(const std::string& folder, const FileEntry& entry, const std::string& from) {
  if (!is_whole(from, entry)) return false;
  sync_file(from);  // before it has the name: a loss of power leaves no file that is cut short under it
  std::error_code failed;
  std::filesystem::rename(from, in_folder(folder, entry.name), failed);
  if (failed)
    throw error(ErrorKind::file, "cannot write {}: {}", in_folder(folder, entry.name), failed.message());
  sync_folder(folder);
  return true;
}

}  // namespace troupe::data
