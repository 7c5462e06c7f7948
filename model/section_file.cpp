#include "model/section_file.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/error.hpp"
#include "kernels/base/file_lock.hpp"
#include "kernels/base/sync_folder.hpp"

namespace troupe::model {

static_assert(std::endian::native == std::endian::little, "files hold little-endian numbers");

namespace {

constexpr uint64_t kDigestBytes = 32;
constexpr uint64_t kPieceBytes = 1 << 20;  // written, hashed and read in pieces that stay in cache
constexpr const char* kPadding = "pad";
constexpr int kAttemptsMax = 100;  // at a temporary name that others take and give up meanwhile

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

// Whether it is this open file that has the name, now. While one holds its lock, that remains so.
bool has_name(int descriptor, const std::filesystem::path& name) {
  struct stat ours {};
  struct stat there {};
  return ::fstat(descriptor, &ours) == 0 && ::stat(name.c_str(), &there) == 0 &&
         ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

}  // namespace

SectionWriter::SectionWriter(const FileKind& kind, std::filesystem::path path, uint64_t bytes_needed)
    : kind_(kind),
      path_(std::move(path)),
      partial_(path_.string() + ".partial"),
      bytes_needed_(bytes_needed) {
  create();
  FileHeader header{};
  std::memcpy(header.magic, kind.magic, sizeof header.magic);
  header.format = kind.format;
  try {
    write(&header, sizeof header);
  } catch (...) {
    discard();
    throw;
  }
}

// Between opening and locking, another writer may finish the file or give it up, and who takes it for
// abandoned may remove it: then it is not to be touched any more, and the name is tried again.
void SectionWriter::create() {
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor_ < 0) fail("create", errno);
    const bool locked = try_lock(descriptor_, LOCK_EX);
    const bool ours = locked && has_name(descriptor_, partial_);
    if (ours && ::ftruncate(descriptor_, 0) == 0) return;
    const int reason = errno;
    ::close(std::exchange(descriptor_, -1));
    if (ours) fail("create", reason);
    if (!locked) break;
  }
  throw error(ErrorKind::file, "cannot create {} {}: another process writes it", kind_.name, path_.string());
}

void SectionWriter::remove_if_abandoned(const std::filesystem::path& partial) {
  const int descriptor = ::open(partial.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return;
  if (try_lock(descriptor, LOCK_EX) && has_name(descriptor, partial)) ::unlink(partial.c_str());
  ::close(descriptor);
}

// The name goes before the lock: after that it may be another writer's.
void SectionWriter::discard() noexcept {
  ::unlink(partial_.c_str());
  ::close(std::exchange(descriptor_, -1));
}

SectionWriter::~SectionWriter() {
  if (descriptor_ >= 0) discard();
}

uint64_t SectionWriter::file_bytes(uint64_t payload_bytes, int sections) {
  return sizeof(FileHeader) + uint64_t(sections) * sizeof(SectionHeader) + payload_bytes + kDigestBytes;
}

void SectionWriter::fail(const char* what, int reason) {
  if (reason == ENOSPC || reason == EDQUOT)
    throw error(ErrorKind::file,
                "cannot {} {} {}: the disk is full; it takes {} bytes: free some or choose another folder",
                what, kind_.name, path_.string(), bytes_needed_);
  throw error(ErrorKind::file, "cannot {} {} {}: {}", what, kind_.name, path_.string(),
              std::strerror(reason));
}

void SectionWriter::write(const void* data, uint64_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const uint64_t piece = std::min(bytes, kPieceBytes);
    const ssize_t written = ::write(descriptor_, next, piece);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("write", written == 0 ? ENOSPC : errno);
    sha_.update(next, size_t(written));
    next += written;
    bytes -= uint64_t(written);
    written_ += uint64_t(written);
  }
}

void SectionWriter::section(const char* tag, const void* data, uint64_t bytes) {
  const SectionHeader header = section_header(tag, bytes, checksum64(data, bytes));
  write(&header, sizeof header);
  write(data, bytes);
}

void SectionWriter::aligned_section(const char* tag, const void* data, uint64_t bytes, uint64_t alignment) {
  const uint64_t payload = written_ + 2 * sizeof(SectionHeader);  // behind that of the padding
  const std::vector<char> padding((alignment - payload % alignment) % alignment);
  section(kPadding, padding.data(), padding.size());
  section(tag, data, bytes);
}

void SectionWriter::finish() {
  const auto digest = sha_.digest();
  sha_ = Sha256();
  write(digest.data(), digest.size());
  if (::fsync(descriptor_) != 0) fail("sync", errno);
  // Under the lock: a writer that got it before would empty what is about to get its name.
  if (::rename(partial_.c_str(), path_.c_str()) != 0) fail("finish", errno);
  // Everything is on the disk since the sync, so closing has nothing left to say.
  ::close(std::exchange(descriptor_, -1));
  sync_folder(path_.has_parent_path() ? path_.parent_path().string() : ".");
}

SectionReader::SectionReader(const FileKind& kind, std::filesystem::path path, bool whole)
    : kind_(kind), path_(std::move(path)), whole_(whole) {
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0)
    throw error(ErrorKind::file, "cannot open {} {}: {}", kind.name, path_.string(), std::strerror(errno));
  try {
    if (!S_ISREG(status.st_mode)) throw error(ErrorKind::file, "{} is not a file", path_.string());
    size_ = left_ = uint64_t(status.st_size);
    FileHeader header{};
    if (left_ < sizeof header) corrupt(fmt::format("it has {} bytes, less than a header", left_));
    read(&header, sizeof header);
    if (std::memcmp(header.magic, kind.magic, sizeof header.magic) != 0)
      throw error(ErrorKind::corrupt, "{0} is no {1}: it does not start as one", path_.string(), kind.name);
    if (header.format > kind.format)
      throw error(
          ErrorKind::version,
          "{} {} has format {}, written by a newer troupe; this one reads up to format {}: update troupe",
          kind.name, path_.string(), header.format, kind.format);
    if (header.format == 0 || header.reserved != 0) corrupt("its header is damaged");
    format_ = header.format;
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

SectionReader::~SectionReader() {
  ::close(descriptor_);
}

void SectionReader::corrupt(const std::string& what) const {
  throw error(ErrorKind::corrupt, "{} {} is broken: {}; {}", kind_.name, path_.string(), what, kind_.remedy);
}

void SectionReader::read(void* data, uint64_t bytes) {
  if (bytes > left_) corrupt(fmt::format("it ends {} bytes too early", bytes - left_));
  left_ -= bytes;
  char* next = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t count = ::read(descriptor_, next, std::min(bytes, kPieceBytes));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0)
      throw error(ErrorKind::file, "cannot read {} {}: {}", kind_.name, path_.string(), std::strerror(errno));
    if (count == 0) corrupt("it ends too early");
    if (whole_) sha_.update(next, size_t(count));
    next += count;
    bytes -= uint64_t(count);
  }
}

uint64_t SectionReader::begin_section(const char* tag) {
  SectionHeader header{};
  read(&header, sizeof header);
  const auto is = [&](const char* name) {
    const SectionHeader expected = section_header(name, header.bytes, header.checksum);
    return std::memcmp(header.tag, expected.tag, sizeof header.tag) == 0;
  };
  if (is(kPadding)) {
    section_bytes_ = header.bytes;
    section_checksum_ = header.checksum;
    tag_ = kPadding;
    check_section();
    read(&header, sizeof header);
  }
  if (!is(tag)) corrupt(fmt::format("the section \"{}\" is not where it should be", tag));
  if (header.bytes > left_) corrupt(fmt::format("it ends inside the section \"{}\"", tag));
  tag_ = tag;
  section_bytes_ = header.bytes;
  section_checksum_ = header.checksum;
  return header.bytes;
}

void SectionReader::read_section(void* data) {
  read(data, section_bytes_);
  compare(checksum64(data, section_bytes_));
}

void SectionReader::compare(uint64_t checksum) const {
  if (checksum != section_checksum_)
    corrupt(fmt::format("the bytes of the section \"{}\" do not match their checksum", tag_));
}

std::string SectionReader::read_text(const char* tag) {
  std::string text(begin_section(tag), '\0');
  read_section(text.data());
  return text;
}

void SectionReader::check_section() {
  if (section_bytes_ > left_) corrupt(fmt::format("it ends inside the section \"{}\"", tag_));
  std::vector<char> piece(std::min(section_bytes_, kPieceBytes));
  Checksum64 checksum;
  for (uint64_t left = section_bytes_; left > 0;) {
    const uint64_t bytes = std::min(left, kPieceBytes);
    read(piece.data(), bytes);
    checksum.update(piece.data(), bytes);
    left -= bytes;
  }
  compare(checksum.value());
}

void SectionReader::check_section(const void* file) {
  TROUPE_CHECK(!whole_);
  compare(checksum64(static_cast<const char*>(file) + position(), section_bytes_));
  left_ -= section_bytes_;
  if (::lseek(descriptor_, off_t(position()), SEEK_SET) < 0)
    throw error(ErrorKind::file, "cannot read {} {}: {}", kind_.name, path_.string(), std::strerror(errno));
}

kernels::Buffer SectionReader::map() const {
  void* const data = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor_, 0);
  if (data == MAP_FAILED)
    throw error(ErrorKind::file, "cannot map {} {}: {}", kind_.name, path_.string(), std::strerror(errno));
  return {data, size_, {}, [](void* mapped, size_t bytes, kernels::Device) { ::munmap(mapped, bytes); }};
}

void SectionReader::check_rest(uint64_t bytes, int sections) const {
  const uint64_t expected = uint64_t(sections) * sizeof(SectionHeader) + bytes + kDigestBytes;
  if (left_ < expected) corrupt(fmt::format("it ends {} bytes too early", expected - left_));
  if (left_ > expected) corrupt(fmt::format("{} bytes follow its end", left_ - expected));
}

void SectionReader::finish() {
  TROUPE_CHECK(whole_);
  const auto expected = sha_.digest();
  sha_ = Sha256();
  std::array<uint8_t, kDigestBytes> digest{};
  read(digest.data(), digest.size());
  if (digest != expected) corrupt("its bytes do not match its digest");
  if (left_ != 0) corrupt(fmt::format("{} bytes follow its end", left_));
}

}  // namespace troupe::model
