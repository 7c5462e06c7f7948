// Where a dataset is being made: OUT/.work, owned by one process at a time and gone at the end, with OUT
// where that was made for it and is empty still. Until replace_dataset() nothing else in OUT changes.
#pragma once

#include <string>
#include <vector>

#include "data/files.hpp"

namespace troupe::data {

// Whether `out` has a tokenizer.model that is no part of a dataset, or of what is left of one.
bool holds_lone_tokenizer(const std::string& out);

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

  // Moves these files and the manifest from new_dataset() into OUT, in the place of a dataset that is there;
  // nothing else of OUT is touched. The old manifest goes first and the new one comes last, so that a mixture
  // never looks whole. The tokenizer there stays until the new one takes its place where it is `given`, as
  // the one to use. `sync` makes the moves survive a loss of power. Throws Error(file).
  void replace_dataset(const std::vector<FileEntry>& files, bool given, bool sync) const;

 private:
  std::string out_, path_;
  bool made_;
  int lock_ = -1;
};

}  // namespace troupe::data
