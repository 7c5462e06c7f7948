// Lines of standard input as they come: for programs that answer while their input goes on.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace troupe::cli {

class LineReader {
 public:
  static constexpr size_t kLineBytesMax = 1 << 20;
  static constexpr size_t kBytesAtOnce = 16 << 20;  // of lines; one more may come on top

  explicit LineReader(int descriptor) : descriptor_(descriptor) {}

  // Waits for one line, then adds the lines that are there already, up to `lines_max` or kBytesAtOnce in all;
  // empty at the end of the input. Throws Error(file) when reading fails, Error(usage) for a line of more
  // than kLineBytesMax; the lines before that are returned first.
  std::vector<std::string> next(size_t lines_max);

 private:
  void take_lines(size_t lines_max, std::vector<std::string>* lines);
  bool take_line(std::string* line);
  bool readable_now() const;
  void fill();

  int descriptor_;
  std::string buffer_;
  size_t begin_ = 0;     // of what has not been taken
  size_t searched_ = 0;  // no line ends before this
  size_t lines_ = 0;
  bool ended_ = false;
};

}  // namespace troupe::cli
