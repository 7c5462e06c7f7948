// How a training run is shown: a live line on a terminal, a line a report in a file or pipe, or JSON objects.
#pragma once

#include <string>

namespace troupe::wire {
class Report;
class JobEnded;
}  // namespace troupe::wire

namespace troupe::actors {

class Progress {
 public:
  enum class Form : uint8_t { live = 1, lines, json };
  explicit Progress(Form form) : form_(form) {}
  static Form form_for(bool json);  // json, or live when standard output is a terminal

  void show(const wire::Report& report);
  void say(const std::string& message);      // between reports, on standard error
  void end_line();                           // of the live line, before others write
  void finish(const wire::JobEnded& ended);  // the last line or object

 private:
  Form form_;
  bool line_open_ = false;
  int64_t target_tokens_ = 0;  // of all reports but the first, and how long they took
  double seconds_ = 0;
  int64_t tokens_before_ = -1;  // no report yet
  double first_rate_ = 0;
  double loss_ = 0;
};

}  // namespace troupe::actors
