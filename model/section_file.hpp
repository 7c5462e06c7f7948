// The bytes of checkpoints and exported models: sections with checksums, written whole or not at all, and a
// SHA-256 of everything last.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "kernels/base/hash.hpp"
#include "kernels/tensor.hpp"

namespace troupe::model {

struct FileKind {
  char magic[9];       // the first eight bytes
  uint32_t format;     // the newest that this program knows
  const char* name;    // "checkpoint"
  const char* remedy;  // what to do when one is broken
};

// Writes PATH.partial; finish() makes it PATH. Destroyed before that, it leaves nothing. As long as the file
// bears the first name, it is locked (flock), so that a file without a lock is what a process left that has
// died.
class SectionWriter {
 public:
  // `bytes_needed` is the size of the whole file, for the message when the disk is full.
  SectionWriter(const FileKind& kind, std::filesystem::path path, uint64_t bytes_needed);
  ~SectionWriter();
  SectionWriter(const SectionWriter&) = delete;
  SectionWriter& operator=(const SectionWriter&) = delete;

  void section(const char* tag, const void* data, uint64_t bytes);
  // The same, beginning at a multiple of `alignment` of the file, for readers that map it.
  void aligned_section(const char* tag, const void* data, uint64_t bytes, uint64_t alignment);
  void finish();  // digest, sync, rename, sync of the folder

  static uint64_t file_bytes(uint64_t payload_bytes, int sections);
  // Removes a PATH.partial that nobody writes any more.
  static void remove_if_abandoned(const std::filesystem::path& partial);

 private:
  void create();
  void discard() noexcept;
  void write(const void* data, uint64_t bytes);
  [[noreturn]] void fail(const char* what, int reason);

  const FileKind& kind_;
  std::filesystem::path path_, partial_;
  uint64_t bytes_needed_, written_ = 0;
  int descriptor_ = -1;
  Sha256 sha_;
};

// Reads sections in their order. Every fault is an Error that names the file: file, corrupt or version.
class SectionReader {
 public:
  // Opens, checks magic and version. `whole`: finish() will be called; without it no digest is computed.
  SectionReader(const FileKind& kind, std::filesystem::path path, bool whole);
  ~SectionReader();
  SectionReader(const SectionReader&) = delete;
  SectionReader& operator=(const SectionReader&) = delete;

  uint64_t begin_section(const char* tag);  // its bytes
  void read_section(void* data);            // all of them; verifies the checksum
  std::string read_text(const char* tag);
  void check_section();                  // reads past it; verifies the checksum
  void check_section(const void* file);  // the same, in a mapping of the whole file, without reading it again
  void finish();                         // verifies the digest and that nothing follows
  // For a reader that stops here: checks by the file's length alone that `sections` more of together `bytes`
  // follow.
  void check_rest(uint64_t bytes, int sections) const;

  // The whole file, mapped for reading: the one that is open here, whichever bears its name by now.
  kernels::Buffer map() const;

  uint32_t format() const { return format_; }          // of the file: at most the kind's
  uint64_t position() const { return size_ - left_; }  // of the file: what is read next

  [[noreturn]] void corrupt(const std::string& what) const;

 private:
  void read(void* data, uint64_t bytes);
  void compare(uint64_t checksum) const;

  const FileKind& kind_;
  std::filesystem::path path_;
  bool whole_;
  int descriptor_ = -1;
  uint32_t format_ = 0;
  uint64_t size_ = 0;
  uint64_t left_ = 0;  // bytes of the file after the read position
  std::string tag_;
  uint64_t section_bytes_ = 0;
  uint64_t section_checksum_ = 0;
  Sha256 sha_;
};

}  // namespace troupe::model
