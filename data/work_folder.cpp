#include "data/work_folder.hpp"

#include <cerrno>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "data/manifest.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/sync_folder.hpp"

namespace troupe::data {
namespace {

bool is_dataset_file(const std::string& name) {
  if (name == kManifestName || name == kTokenizerName) return true;
  for (const Split split : kSplits) {
    const std::string prefix(to_string(split));
    if (name == prefix + ".packs" || name == prefix + ".text.tsv") return true;
    if (name.starts_with(prefix + "-") && name.ends_with(".tokens")) return true;
  }
  return false;
}

// The manifest first: a half-removed dataset never looks whole. Then the tokenizer, which would look like
// somebody's own if it were left alone.
void remove_dataset(const std::string& out, bool keep_tokenizer) {
  const std::string manifest = out + "/" + std::string(kManifestName);
  std::error_code failed;
  std::filesystem::remove(manifest, failed);
  if (failed)
    throw error(ErrorKind::file, "cannot remove {}: {}; check its permissions", manifest, failed.message());
  std::error_code ignored;  // what stays is written over, or named by no manifest
  if (!keep_tokenizer) std::filesystem::remove(out + "/" + std::string(kTokenizerName), ignored);
  for (const auto& entry : std::filesystem::directory_iterator(out, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name != kTokenizerName && is_dataset_file(name)) std::filesystem::remove(entry.path(), ignored);
  }
}

}  // namespace

bool holds_lone_tokenizer(const std::string& out) {
  bool found = false;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(out, none)) {
    const std::string name = entry.path().filename().string();
    if (name == kTokenizerName)
      found = true;
    else if (is_dataset_file(name))
      return false;
  }
  return found;
}

WorkFolder::WorkFolder(const std::string& out)
    : out_(out), path_(out + "/.work"), made_(!std::filesystem::exists(out)) {
  make_folder(out);
  lock_ = ::open(out.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);  // the folder itself is what is locked
  if (lock_ < 0)
    throw error(ErrorKind::file, "cannot write into {}: {}; choose a folder that you may write to", out,
                std::strerror(errno));
  try {
    if (::flock(lock_, LOCK_EX | LOCK_NB) != 0)
      throw error(
          ErrorKind::usage,
          "cannot prepare into {}: another troupe prepare is at work there; wait for it, or choose another "
          "folder",
          out);
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

void WorkFolder::replace_dataset(const std::vector<FileEntry>& files, bool given, bool sync) const {
  const auto put = [&](const std::string& name) {
    std::error_code failed;
    std::filesystem::rename(new_dataset() + "/" + name, out_ + "/" + name, failed);
    if (failed)
      throw error(ErrorKind::file, "cannot move {} into {}: {}; check the folder and its permissions", name,
                  out_, failed.message());
  };
  remove_dataset(out_, given);
  for (const FileEntry& file : files)
    if (file.name != kTokenizerName) put(file.name);
  put(std::string(kTokenizerName));  // never alone
  if (sync) sync_folder(out_);
  put(std::string(kManifestName));
  if (sync) sync_folder(out_);
}

}  // namespace troupe::data
