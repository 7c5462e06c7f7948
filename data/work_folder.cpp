#include "data/work_folder.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "data/manifest.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/sync_folder.hpp"

namespace troupe::data {
namespace {

// As PackWriter names them: "train-00000.tokens". A "train-en.tokens" is somebody's own.
bool is_shard(std::string_view name, std::string_view prefix) {
  constexpr std::string_view ending = ".tokens";
  if (!name.starts_with(prefix) || !name.ends_with(ending)) return false;
  name.remove_prefix(prefix.size());
  name.remove_suffix(ending.size());
  return name.size() >= 5 && name.find_first_not_of("0123456789") == std::string_view::npos;
}

bool is_dataset_file(const std::string& name) {
  if (name == kManifestName || name == kTokenizerName) return true;
  for (const Split split : kSplits) {
    const std::string prefix(to_string(split));
    if (name == prefix + ".packs" || name == prefix + ".text.tsv") return true;
    if (is_shard(name, prefix + "-")) return true;
  }
  return false;
}

void lock_folder(int folder, const std::string& out) {
  if (::flock(folder, LOCK_EX | LOCK_NB) == 0) return;
  const int reason = errno;
  if (reason == EWOULDBLOCK)
    throw error(
        ErrorKind::usage,
        "cannot prepare into {}: another troupe prepare is at work there; wait for it, or choose another "
        "folder",
        out);
  throw error(ErrorKind::file, "cannot lock {}: {}; choose a folder on another file system", out,
              std::strerror(reason));
}

// What a killed run leaves in its work folder is removed; anything else there is somebody's own.
void require_own(const std::string& work, const std::string& out) {
  std::error_code none;
  const auto status = std::filesystem::symlink_status(work, none);
  bool own = !std::filesystem::exists(status) || std::filesystem::is_directory(status);
  for (const auto& entry : std::filesystem::directory_iterator(work, none)) {
    const std::string name = entry.path().filename().string();
    own = own && (name == "dataset" || name == "apt" || name.starts_with("scratch-"));
  }
  if (!own)
    throw error(
        ErrorKind::usage,
        "cannot prepare into {}: its .work is none that troupe prepare has left and would be removed; "
        "move it away, or choose another folder",
        out);
}

std::vector<std::string> dataset_files_in(const std::string& out) {
  std::vector<std::string> found;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(out, none)) {
    std::string name = entry.path().filename().string();
    if (is_dataset_file(name)) found.push_back(std::move(name));
  }
  std::sort(found.begin(), found.end());
  return found;
}

bool is_there(const std::string& path) {
  std::error_code none;
  return std::filesystem::exists(path, none);
}

}  // namespace

bool holds_dataset(const std::string& out) {
  std::ifstream in(out + "/" + std::string(kManifestName), std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  return text.find(kDatasetFormat) != std::string::npos;
}

std::optional<std::string> somebodys_own(const std::string& out, bool tokenizer_too) {
  const bool dataset = holds_dataset(out);
  for (const std::string& name : dataset_files_in(out)) {
    std::error_code none;
    if (std::filesystem::is_directory(std::filesystem::symlink_status(out + "/" + name, none))) return name;
    if (!dataset && (name != kTokenizerName || tokenizer_too)) return name;
  }
  return std::nullopt;
}

bool would_be_removed(const std::string& out, const std::string& path) {
  std::error_code none;
  for (const std::string& name : dataset_files_in(out))
    if (std::filesystem::equivalent(out + "/" + name, path, none)) return true;
  return false;
}

WorkFolder::WorkFolder(const std::string& out) : out_(out), path_(out + "/.work"), made_(!is_there(out)) {
  make_folder(out);
  lock_ = ::open(out.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);  // the folder itself is what is locked
  if (lock_ < 0)
    throw error(ErrorKind::file, "cannot write into {}: {}; choose a folder that you may write to", out,
                std::strerror(errno));
  try {
    lock_folder(lock_, out);
    require_own(path_, out);
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);  // what a killed run left behind
    make_folder(new_dataset());
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

WorkFolder::~WorkFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
  if (made_) std::filesystem::remove(out_, ignored);  // fails where something is in it
  ::close(lock_);
}

void WorkFolder::replace_dataset(const std::vector<FileEntry>& files, bool sync) const {
  const auto put = [&](const std::string& name) {
    std::error_code failed;
    std::filesystem::rename(new_dataset() + "/" + name, out_ + "/" + name, failed);
    if (failed)
      throw error(ErrorKind::file, "cannot move {} into {}: {}; check the folder and its permissions", name,
                  out_, failed.message());
  };
  const std::string manifest(kManifestName);
  std::vector<std::string> stale = dataset_files_in(out_);
  std::error_code failed;
  std::filesystem::remove(out_ + "/" + manifest, failed);
  if (failed)
    throw error(ErrorKind::file, "cannot remove {}/{}: {}; check its permissions", out_, manifest,
                failed.message());
  for (const FileEntry& file : files) {
    if (file.name != kTokenizerName) put(file.name);
    std::erase(stale, file.name);
  }
  put(std::string(kTokenizerName));  // never alone
  if (sync) sync_folder(out_);
  put(manifest);
  std::erase(stale, manifest);
  for (const std::string& name : stale) std::filesystem::remove(out_ + "/" + name, failed);
  if (sync) sync_folder(out_);
}

}  // namespace troupe::data
