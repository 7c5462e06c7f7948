// The bytes of a checkpoint file: sections written and read with checksums, whole or not at all. Internal to
// checkpoint.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "kernels/base/hash.hpp"

namespace troupe::model {

inline constexpr uint32_t kCheckpointFormat = 1;

// Writes PATH.partial; finish() makes it PATH. Destroyed before that, it leaves nothing.
class CheckpointWriter {
 public:
  // `bytes_needed` is the size of the whole file, for the message when the disk is full.
  CheckpointWriter(std::filesystem::path path, uint64_t bytes_needed);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  void section(const char* tag, const void* data, uint64_t bytes);
  void finish();  // digest, sync, rename, sync of the folder

  static uint64_t file_bytes(uint64_t payload_bytes, int sections);

 private:
  void write(const void* data, uint64_t bytes);
  [[noreturn]] void fail(const char* what, int reason);

  std::filesystem::path path_, partial_;
  uint64_t bytes_needed_;
  int descriptor_ = -1;
  Sha256 sha_;
};

// Reads sections in their order. Every fault is an Error that names the file: file, corrupt or version.
class CheckpointReader {
 public:
  explicit CheckpointReader(std::filesystem::path path);  // opens, checks magic and version
  ~CheckpointReader();
  CheckpointReader(const CheckpointReader&) = delete;
  CheckpointReader& operator=(const CheckpointReader&) = delete;

  uint64_t begin_section(const char* tag);  // its bytes
  void read_section(void* data);            // all of them; verifies the checksum
  std::string read_text(const char* tag);
  void hash_section();  // reads past it
  void finish();        // verifies the digest and that nothing follows
  // For a reader that stops here: checks by the file's length alone that `sections` more of together `bytes` follow.
  void check_rest(uint64_t bytes, int sections) const;

  [[noreturn]] void corrupt(const std::string& what) const;

 private:
  void read(void* data, uint64_t bytes);

  std::filesystem::path path_;
  int descriptor_ = -1;
  uint64_t left_ = 0;  // bytes of the file after the read position
  std::string tag_;
  uint64_t section_bytes_ = 0;
  uint64_t section_checksum_ = 0;
  Sha256 sha_;
};

}  // namespace troupe::model
