// Files: written to a temporary name, synced, renamed; read by mapping. Every failure is Error(file) with the
// path, the reason and what to do. Not thread-safe but for MappedFile, which is immutable.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/base/hash.hpp"

namespace troupe::data {

// Name, size and SHA-256 of a finished file, as the manifest keeps them.
struct FileEntry {
  std::string name;
  uint64_t bytes = 0;
  std::string sha256;
};

// Appends to FOLDER/.NAME.tmp until commit() gives it its name. An uncommitted file is removed.
class FileWriter {
 public:
  FileWriter(std::string folder, std::string name, bool sync);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void append(std::string_view bytes);  // buffered
  FileEntry commit();

 private:
  void flush();

  std::string folder_, name_, temporary_;
  std::string buffer_;
  Sha256 hash_;
  uint64_t bytes_ = 0;
  int fd_ = -1;
  bool sync_;
};

FileEntry write_file(const std::string& folder, const std::string& name, std::string_view bytes, bool sync);

// Appends and reads back byte ranges of a file without a name: it is gone with its owner.
class ScratchFile {
 public:
  explicit ScratchFile(const std::string& folder);
  ~ScratchFile();
  ScratchFile(ScratchFile&& other) noexcept;
  ScratchFile& operator=(ScratchFile&&) = delete;

  uint64_t append(std::string_view bytes);  // returns its offset
  std::string read(uint64_t offset, uint64_t bytes) const;
  uint64_t size() const { return size_; }

 private:
  std::string folder_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::string_view bytes() const { return {data_, size_}; }
  // Gives the pages read so far back; they come again when they are used.
  void release() const;

 private:
  const char* data_ = nullptr;
  size_t size_ = 0;
};

// All the bytes, in as many calls as it takes; `name` is what an error says they were written to.
void write_all(int descriptor, std::string_view bytes, const std::string& name);
void sync_file(const std::string& path);  // whoever has written it

std::string read_file(const std::string& path);
void make_folder(const std::string& path);  // and its parents

}  // namespace troupe::data
