// Where a dataset is being made: OUT/.work, owned by one process at a time and gone at the end, with OUT
// where that was made for it and is empty still. Until replace_dataset() nothing else in OUT changes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/files.hpp"

namespace troupe::data {

bool holds_dataset(const std::string& out);

// A file that a dataset in `out` would replace though it is of none, or a folder under such a name: what a
// run that was killed has left counts too, since nobody can tell. Of the tokenizer only where it is not the
// one to use.
std::optional<std::string> somebodys_own(const std::string& out, bool tokenizer_too);

// Whether the file at `path` lies in `out` under a name that goes when a dataset there is replaced.
bool would_be_removed(const std::string& out, const std::string& path);

class WorkFolder {
 public:
  // Makes OUT and OUT/.work, emptied of what a killed run left. Throws Error(usage) while another process is
  // at it and for a .work that no run has left, and Error(file) when OUT cannot be written.
  explicit WorkFolder(const std::string& out);
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string new_dataset() const { return path_ + "/dataset"; }  // a folder for its files

  // Moves these files, the tokenizer and the manifest from new_dataset() into OUT, in the place of a dataset
  // that is there; nothing else of OUT is touched. The old manifest goes first, the new one comes when all
  // else is there, so that a mixture never looks whole, and then what is of the old dataset alone goes.
  // `sync` makes the moves survive a loss of power. Throws Error(file).
  void replace_dataset(const std::vector<FileEntry>& files, bool sync) const;

 private:
  std::string out_, path_;
  bool made_;
  int lock_ = -1;
};

}  // namespace troupe::data
