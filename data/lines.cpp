#include "data/lines.hpp"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "data/clean.hpp"
#include "kernels/base/error.hpp"

namespace troupe::data {
namespace {
constexpr size_t kReadBytes = 256 << 10;
}

LineReader::LineReader(std::string path, LineOptions options) : path_(std::move(path)), options_(options) {
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0)
    throw error(ErrorKind::file, "cannot read {}: {}; give the path of a UTF-8 text file", path_,
                std::strerror(errno));
}
LineReader::~LineReader() {
  if (fd_ >= 0) ::close(fd_);
}
LineReader::LineReader(LineReader&& other) noexcept
    : path_(std::move(other.path_)),
      options_(other.options_),
      fd_(std::exchange(other.fd_, -1)),
      buffer_(std::move(other.buffer_)),
      begin_(other.begin_),
      line_number_(other.line_number_),
      invalid_lines_(other.invalid_lines_),
      bytes_read_(other.bytes_read_),
      at_end_(other.at_end_),
      line_invalid_(other.line_invalid_) {}

bool LineReader::fill() {
  buffer_.erase(0, begin_);
  begin_ = 0;
  const size_t kept = buffer_.size();
  buffer_.resize(kept + kReadBytes);
  ssize_t got = 0;
  do got = ::read(fd_, buffer_.data() + kept, kReadBytes);
  while (got < 0 && errno == EINTR);
  if (got < 0) {
    const int reason = errno;
    throw error(ErrorKind::file, "cannot read {}: {}; check that it is a readable text file", path_,
                std::strerror(reason));
  }
  buffer_.resize(kept + size_t(got));
  bytes_read_ += uint64_t(got);
  return got > 0;
}

bool LineReader::next(std::string_view* line) {
  size_t searched = 0;
  while (true) {
    const std::string_view rest = std::string_view(buffer_).substr(begin_);
    const size_t end = rest.find('\n', searched);
    const size_t length = end == std::string_view::npos ? rest.size() : end;
    if (length > options_.bytes_max)
      throw error(ErrorKind::file, "cannot use {}:{}: the line is longer than {} bytes; split it", path_,
                  line_number_ + 1, options_.bytes_max);
    if (end == std::string_view::npos && !at_end_) {
      searched = rest.size();
      at_end_ = !fill();
      continue;
    }
    if (end == std::string_view::npos && rest.empty()) return false;
    begin_ += end == std::string_view::npos ? length : length + 1;
    ++line_number_;
    *line = checked(rest.substr(0, length));
    return true;
  }
}

std::string_view LineReader::checked(std::string_view line) {
  const bool whole_file = line_number_ == 1 && at_end_ && begin_ == buffer_.size();
  if (whole_file && line.substr(0, line.size() - (line.empty() ? 0 : 1)).find('\r') != std::string_view::npos)
    throw error(ErrorKind::file,
                "cannot use {}: its lines end with a carriage return alone; convert it (tr '\\r' '\\n')",
                path_);
  if (line_number_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
  if (line.ends_with('\r')) line.remove_suffix(1);
  const size_t invalid = find_invalid_utf8(line);
  line_invalid_ = invalid != std::string_view::npos;
  if (!line_invalid_) return line;
  if (!options_.skip_invalid_utf8)
    throw error(
        ErrorKind::file,
        "cannot use {}:{}: byte {} (0x{:02x}) is not UTF-8; convert the file (iconv -t UTF-8), or skip "
        "such lines with --skip-invalid-utf8",
        path_, line_number_, invalid + 1, static_cast<unsigned char>(line[invalid]));
  ++invalid_lines_;
  return {};
}

}  // namespace troupe::data
