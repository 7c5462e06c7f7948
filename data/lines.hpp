// Reads a text file line by line in bounded memory. Knows where it is, so that errors name file and line: a
// line beyond the bound and bytes that are not UTF-8 and a missing file are Error(file). Belongs
// to one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace troupe::data {

struct LineOptions {
  uint32_t bytes_max = 1 << 20;
  bool skip_invalid_utf8 = false;  // such a line is handed out as empty and counted
};

class LineReader {
 public:
  LineReader(std::string path, LineOptions options);
  ~LineReader();
  LineReader(LineReader&& other) noexcept;
  LineReader& operator=(LineReader&&) = delete;

  // The next line without its end (\n or \r\n) and without a byte-order mark; false at the end of the file.
  // The view is good until the next call.
  bool next(std::string_view* line);
  uint64_t line_number() const { return line_number_; }  // of the line handed out last, from 1
  bool line_invalid() const { return line_invalid_; }    // the line handed out last was left out
  uint64_t invalid_lines() const { return invalid_lines_; }
  uint64_t bytes_read() const { return bytes_read_; }
  const std::string& path() const { return path_; }

 private:
  bool fill();
  std::string_view checked(std::string_view line);

  std::string path_;
  LineOptions options_;
  int fd_ = -1;
  std::string buffer_;
  size_t begin_ = 0;  // of what is not handed out yet
  uint64_t line_number_ = 0, invalid_lines_ = 0, bytes_read_ = 0;
  bool at_end_ = false, line_invalid_ = false;
};

}  // namespace troupe::data
