#include "data/work_folder.hpp"

#include <cerrno>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "data/files.hpp"
#include "data/manifest.hpp"
#include "kernels/base/error.hpp"

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

}  // namespace

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
    make_folder(path_);
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

void remove_old_dataset(const std::string& out) {
  std::error_code ignored;
  std::filesystem::remove(out + "/" + std::string(kManifestName), ignored);
  for (const auto& entry : std::filesystem::directory_iterator(out, ignored))
    if (is_dataset_file(entry.path().filename().string())) std::filesystem::remove(entry.path(), ignored);
}

}  // namespace troupe::data
