#include "model/checkpoint_file.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/error.hpp"

namespace troupe::model {

static_assert(std::endian::native == std::endian::little, "files hold little-endian numbers");

namespace {

constexpr char kMagic[8] = {'T', 'R', 'O', 'U', 'P', 'E', 'C', 'K'};
constexpr uint64_t kDigestBytes = 32;
constexpr uint64_t kPieceBytes = 1 << 20;  // written, hashed and read in pieces that stay in cache
constexpr const char* kRemedy = "use an older checkpoint of the run or another node's copy";

struct FileHeader {
  char magic[8];
  uint32_t format;
  uint32_t reserved;
};

struct SectionHeader {
  char tag[8];
  uint64_t bytes;
  uint64_t checksum;  // XXH3 of the payload
};

SectionHeader section_header(const char* tag, uint64_t bytes, uint64_t checksum) {
  SectionHeader header{};
  TROUPE_CHECK(std::strlen(tag) < sizeof header.tag);
  std::memcpy(header.tag, tag, std::strlen(tag));
  header.bytes = bytes;
  header.checksum = checksum;
  return header;
}

void sync_folder(const std::filesystem::path& file) {
  const auto folder = file.parent_path().empty() ? std::filesystem::path(".") : file.parent_path();
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0)
    throw error(ErrorKind::file, "cannot open folder {}: {}", folder.string(), std::strerror(errno));
  const int result = ::fsync(descriptor);
  const int reason = errno;
  ::close(descriptor);
  if (result != 0 && reason != EINVAL)  // some file systems cannot sync folders
    throw error(ErrorKind::file, "cannot sync folder {}: {}", folder.string(), std::strerror(reason));
}

}  // namespace

CheckpointWriter::CheckpointWriter(std::filesystem::path path, uint64_t bytes_needed)
    : path_(std::move(path)), partial_(path_.string() + ".partial"), bytes_needed_(bytes_needed) {
  descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail("create", errno);
  FileHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.format = kCheckpointFormat;
  try {
    write(&header, sizeof header);
  } catch (...) {
    ::close(descriptor_);
    ::unlink(partial_.c_str());
    throw;
  }
}

CheckpointWriter::~CheckpointWriter() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(partial_.c_str());
}

uint64_t CheckpointWriter::file_bytes(uint64_t payload_bytes, int sections) {
  return sizeof(FileHeader) + uint64_t(sections) * sizeof(SectionHeader) + payload_bytes + kDigestBytes;
}

void CheckpointWriter::fail(const char* what, int reason) {
  if (reason == ENOSPC || reason == EDQUOT)
    throw error(ErrorKind::file,
                "cannot {} checkpoint {}: the disk is full; it takes {} bytes: free some or choose "
                "another folder",
                what, path_.string(), bytes_needed_);
  throw error(ErrorKind::file, "cannot {} checkpoint {}: {}", what, path_.string(), std::strerror(reason));
}

void CheckpointWriter::write(const void* data, uint64_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const uint64_t piece = std::min(bytes, kPieceBytes);
    const ssize_t written = ::write(descriptor_, next, piece);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("write", written == 0 ? ENOSPC : errno);
    sha_.update(next, size_t(written));
    next += written;
    bytes -= uint64_t(written);
  }
}

void CheckpointWriter::section(const char* tag, const void* data, uint64_t bytes) {
  const SectionHeader header = section_header(tag, bytes, checksum64(data, bytes));
  write(&header, sizeof header);
  write(data, bytes);
}

void CheckpointWriter::finish() {
  const auto digest = sha_.digest();
  sha_ = Sha256();
  write(digest.data(), digest.size());
  if (::fsync(descriptor_) != 0) fail("sync", errno);
  if (::close(std::exchange(descriptor_, -1)) != 0 || ::rename(partial_.c_str(), path_.c_str()) != 0) {
    const int reason = errno;
    ::unlink(partial_.c_str());
    fail("finish", reason);
  }
  sync_folder(path_);
}

CheckpointReader::CheckpointReader(std::filesystem::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0)
    throw error(ErrorKind::file, "cannot open checkpoint {}: {}", path_.string(), std::strerror(errno));
  try {
    if (!S_ISREG(status.st_mode)) throw error(ErrorKind::file, "{} is not a file", path_.string());
    left_ = uint64_t(status.st_size);
    FileHeader header{};
    if (left_ < sizeof header) corrupt(fmt::format("it has {} bytes, less than a header", left_));
    read(&header, sizeof header);
    if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0)
      throw error(ErrorKind::corrupt, "{} is not a checkpoint: it does not start as one", path_.string());
    if (header.format > kCheckpointFormat)
      throw error(ErrorKind::version,
                  "checkpoint {} has format {}, written by a newer troupe; this one reads up to "
                  "format {}: update troupe",
                  path_.string(), header.format, kCheckpointFormat);
    if (header.format == 0 || header.reserved != 0) corrupt("its header is damaged");
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

CheckpointReader::~CheckpointReader() {
  ::close(descriptor_);
}

void CheckpointReader::corrupt(const std::string& what) const {
  throw error(ErrorKind::corrupt, "checkpoint {} is broken: {}; {}", path_.string(), what, kRemedy);
}

void CheckpointReader::read(void* data, uint64_t bytes) {
  if (bytes > left_) corrupt(fmt::format("it ends {} bytes too early", bytes - left_));
  left_ -= bytes;
  char* next = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t count = ::read(descriptor_, next, std::min(bytes, kPieceBytes));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0)
      throw error(ErrorKind::file, "cannot read checkpoint {}: {}", path_.string(), std::strerror(errno));
    if (count == 0) corrupt("it ends too early");
    sha_.update(next, size_t(count));
    next += count;
    bytes -= uint64_t(count);
  }
}

uint64_t CheckpointReader::begin_section(const char* tag) {
  SectionHeader header{};
  read(&header, sizeof header);
  const SectionHeader expected = section_header(tag, header.bytes, header.checksum);
  if (std::memcmp(header.tag, expected.tag, sizeof header.tag) != 0)
    corrupt(fmt::format("the section \"{}\" is not where it should be", tag));
  if (header.bytes > left_) corrupt(fmt::format("it ends inside the section \"{}\"", tag));
  tag_ = tag;
  section_bytes_ = header.bytes;
  section_checksum_ = header.checksum;
  return header.bytes;
}

void CheckpointReader::read_section(void* data) {
  read(data, section_bytes_);
  if (checksum64(data, section_bytes_) != section_checksum_)
    corrupt(fmt::format("the bytes of the section \"{}\" do not match their checksum", tag_));
}

std::string CheckpointReader::read_text(const char* tag) {
  std::string text(begin_section(tag), '\0');
  read_section(text.data());
  return text;
}

void CheckpointReader::hash_section() {
  std::vector<char> piece(kPieceBytes);
  for (uint64_t left = section_bytes_; left > 0;) {
    const uint64_t bytes = std::min(left, kPieceBytes);
    read(piece.data(), bytes);
    left -= bytes;
  }
}

void CheckpointReader::check_rest(uint64_t bytes, int sections) const {
  const uint64_t expected = uint64_t(sections) * sizeof(SectionHeader) + bytes + kDigestBytes;
  if (left_ < expected) corrupt(fmt::format("it ends {} bytes too early", expected - left_));
  if (left_ > expected) corrupt(fmt::format("{} bytes follow its end", left_ - expected));
}

void CheckpointReader::finish() {
  const auto expected = sha_.digest();
  sha_ = Sha256();
  std::array<uint8_t, kDigestBytes> digest{};
  read(digest.data(), digest.size());
  if (digest != expected) corrupt("its bytes do not match its digest");
  if (left_ != 0) corrupt(fmt::format("{} bytes follow its end", left_));
}

}  // namespace troupe::model
