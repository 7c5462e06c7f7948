#include "cli/lines.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <poll.h>
#include <unistd.h>

#include "kernels/base/error.hpp"

namespace troupe::cli {

bool LineReader::take_line(std::string* line) {
  const size_t end = buffer_.find('\n', std::max(begin_, searched_));
  const size_t stop = std::min(end, buffer_.size());
  searched_ = stop;
  if (stop - begin_ > kLineBytesMax)
    throw error(ErrorKind::usage, "line {} of the input is longer than {} bytes; cut it into lines",
                lines_ + 1, kLineBytesMax);
  if (end == std::string::npos && !(ended_ && begin_ < buffer_.size())) return false;
  *line = buffer_.substr(begin_, stop - begin_);
  if (!line->empty() && line->back() == '\r') line->pop_back();
  begin_ = std::min(stop + 1, buffer_.size());
  searched_ = begin_;
  ++lines_;
  return true;
}

bool LineReader::readable_now() const {
  pollfd wanted{descriptor_, POLLIN, 0};
  return !ended_ && ::poll(&wanted, 1, 0) > 0;
}

void LineReader::fill() {
  buffer_.erase(0, begin_);
  searched_ -= std::min(searched_, begin_);
  begin_ = 0;
  char chunk[64 << 10];
  const ssize_t got = ::read(descriptor_, chunk, sizeof chunk);
  if (got < 0 && errno == EINTR) return;
  if (got < 0 && errno == EAGAIN) {  // whoever shares it has asked for that
    pollfd wanted{descriptor_, POLLIN, 0};
    ::poll(&wanted, 1, -1);
    return;
  }
  if (got < 0) throw error(ErrorKind::file, "cannot read the input: {}", std::strerror(errno));
  if (got == 0) ended_ = true;
  buffer_.append(chunk, size_t(got));
}

void LineReader::take_lines(size_t lines_max, std::vector<std::string>* lines) {
  std::string line;
  for (size_t bytes = 0; lines->size() < lines_max && bytes < kBytesAtOnce;) {
    if (take_line(&line)) {
      bytes += line.size();
      lines->push_back(std::move(line));
    } else if (ended_ || (!lines->empty() && !readable_now())) {
      break;
    } else {
      fill();
    }
  }
}

std::vector<std::string> LineReader::next(size_t lines_max) {
  std::vector<std::string> lines;
  try {
    take_lines(lines_max, &lines);
  } catch (const Error&) {
    if (lines.empty()) throw;  // otherwise the next call, which meets the same
  }
  return lines;
}

}  // namespace troupe::cli
