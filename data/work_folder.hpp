// Where a dataset is being made: OUT/.work, owned by one process at a time and gone at the end, with OUT
// where that was made for it and is empty still.
#pragma once

#include <string>

namespace troupe::data {

class WorkFolder {
 public:
  // Makes OUT and OUT/.work, emptied of what a killed run left. Throws Error(usage) while another process is
  // at it and Error(file) when OUT cannot be written.
  explicit WorkFolder(const std::string& out);
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string out_, path_;
  bool made_;
  int lock_ = -1;
};

// Removes the files of a dataset from OUT and nothing else; the manifest first, so that a half-removed
// dataset never looks whole.
void remove_old_dataset(const std::string& out);

}  // namespace troupe::data
