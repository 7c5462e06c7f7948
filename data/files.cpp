#include "data/files.hpp"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/error.hpp"

namespace troupe::data {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

[[noreturn]] void fail(std::string_view what, const std::string& path, int reason) {
  std::string_view advice = "check the path and its permissions";
  if (reason == ENOSPC || reason == EDQUOT) advice = "free some space or choose another folder";
  throw error(ErrorKind::file, "cannot {} {}: {}; {}", what, path, std::strerror(reason), advice);
}

}  // namespace

void write_all(int descriptor, std::string_view bytes, const std::string& name) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) {  // whoever shares it has asked for that
      pollfd ready{descriptor, POLLOUT, 0};
      ::poll(&ready, 1, -1);
      continue;
    }
    if (written < 0) fail("write", name, errno);
    bytes.remove_prefix(size_t(written));
  }
}

void sync_file(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail("open", path, errno);
  const int result = ::fsync(descriptor);
  const int reason = errno;
  ::close(descriptor);
  if (result != 0) fail("sync", path, reason);
}

FileWriter::FileWriter(std::string folder, std::string name, bool sync)
    : folder_(std::move(folder)), name_(std::move(name)), sync_(sync) {
  int tries = 0;  // a name that is there is somebody else's, or of a process that was killed
  do {
    temporary_ = fmt::format("{}/.troupe-{}-{}.tmp", folder_, ::getpid(), tries);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  } while (fd_ < 0 && errno == EEXIST && ++tries < 1'000);
  if (fd_ < 0) fail("create", folder_ + "/" + name_, errno);
  struct stat old {};
  if (::stat((folder_ + "/" + name_).c_str(), &old) == 0) ::fchmod(fd_, old.st_mode & 0777);
}

FileWriter::~FileWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void FileWriter::append(std::string_view bytes) {
  hash_.update(bytes);
  bytes_ += bytes.size();
  if (buffer_.size() + bytes.size() > kBufferBytes) flush();
  if (bytes.size() > kBufferBytes)
    write_all(fd_, bytes, temporary_);
  else
    buffer_.append(bytes);
}

void FileWriter::flush() {
  write_all(fd_, buffer_, temporary_);
  buffer_.clear();
}

FileEntry FileWriter::commit() {
  TROUPE_CHECK(fd_ >= 0);
  flush();
  if (sync_ && ::fsync(fd_) != 0) fail("sync", temporary_, errno);
  const int closed = ::close(std::exchange(fd_, -1));
  const std::string path = folder_ + "/" + name_;
  if (closed != 0 || ::rename(temporary_.c_str(), path.c_str()) != 0) {
    const int reason = errno;
    ::unlink(temporary_.c_str());
    fail("finish", path, reason);
  }
  return {name_, bytes_, hash_.hex()};
}

FileEntry write_file(const std::string& folder, const std::string& name, std::string_view bytes, bool sync) {
  FileWriter writer(folder, name, sync);
  writer.append(bytes);
  return writer.commit();
}

ScratchFile::ScratchFile(const std::string& folder) : folder_(folder) {
  std::string path = folder + "/scratch-XXXXXX";
  fd_ = ::mkostemp(path.data(), O_CLOEXEC);
  if (fd_ < 0) fail("create a temporary file in", folder, errno);
  ::unlink(path.c_str());
}
ScratchFile::~ScratchFile() {
  if (fd_ >= 0) ::close(fd_);
}
ScratchFile::ScratchFile(ScratchFile&& other) noexcept
    : folder_(std::move(other.folder_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

uint64_t ScratchFile::append(std::string_view bytes) {
  write_all(fd_, bytes, folder_);
  return std::exchange(size_, size_ + bytes.size());
}

std::string ScratchFile::read(uint64_t offset, uint64_t bytes) const {
  TROUPE_CHECK(offset + bytes <= size_);
  std::string out(bytes, '\0');
  for (uint64_t done = 0; done < bytes;) {
    const ssize_t got = ::pread(fd_, out.data() + done, bytes - done, off_t(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) fail("read back a temporary file in", folder_, got < 0 ? errno : EIO);
    done += uint64_t(got);
  }
  return out;
}

MappedFile::MappedFile(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("open", path, errno);
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    const int reason = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
    ::close(fd);
    fail("open", path, reason);
  }
  size_ = size_t(status.st_size);
  if (size_ > 0) {
    void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    const int reason = errno;
    ::close(fd);
    if (mapped == MAP_FAILED) fail("map", path, reason);
    data_ = static_cast<const char*>(mapped);
  } else {
    ::close(fd);
  }
}
MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<char*>(data_), size_);
}
MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::release() const {
  if (data_ != nullptr) ::madvise(const_cast<char*>(data_), size_, MADV_DONTNEED);
}

std::string read_file(const std::string& path) {
  return std::string(MappedFile(path).bytes());
}

void make_folder(const std::string& path) {
  std::error_code reason;
  std::filesystem::create_directories(path, reason);
  if (reason) fail("make the folder", path, reason.value());
  if (!std::filesystem::is_directory(path)) fail("use as a folder", path, ENOTDIR);
}

}  // namespace troupe::data
