#include "actors/client/progress.hpp"

#include <cstdio>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "comm/messages.pb.h"
#include "kernels/base/say.hpp"

namespace troupe::actors {

namespace {

std::string duration(double seconds) {
  const auto total = int64_t(seconds + 0.5);
  if (total >= 3600) return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
  return fmt::format("{}:{:02}", total / 60, total % 60);
}

std::string line_of(const wire::Report& r) {
  std::string line =
      fmt::format("step {}/{}  epoch {:.2f}  loss {:.4f}  lr {:.2e}  {:.0f} tokens/s  {} node{}  {} left",
                  r.step(), r.steps(), r.epoch(), r.loss(), r.learning_rate(), r.tokens_per_second(),
                  r.nodes(), r.nodes() == 1 ? "" : "s", duration(r.seconds_left()));
  if (r.validation_loss() > 0) line += fmt::format("  validation {:.4f}", r.validation_loss());
  if (r.skipped_steps() > 0) line += fmt::format("  skipped {}", r.skipped_steps());
  return line;
}

// The job goes on where nothing takes this. The stream remembers that it failed, and so the program does.
void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
}

std::string json_line(const nlohmann::json& object) {
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

nlohmann::json json_of(const wire::Report& r) {
  return {{"step", r.step()},
          {"steps", r.steps()},
          {"epoch", r.epoch()},
          {"loss", r.loss()},
          {"learning_rate", r.learning_rate()},
          {"tokens_per_s", r.tokens_per_second()},
          {"nodes", r.nodes()},
          {"seconds_left", r.seconds_left()},
          {"gradient_norm", r.gradient_norm()},
          {"skipped_steps", r.skipped_steps()},
          {"validation_loss", r.validation_loss() > 0 ? nlohmann::json(r.validation_loss()) : nullptr},
          {"validation_step", r.validation_step()},
          {"target_tokens", r.target_tokens()}};
}

}  // namespace

Progress::Form Progress::form_for(bool json) {
  if (json) return Form::json;
  return isatty(STDOUT_FILENO) == 1 ? Form::live : Form::lines;
}

void Progress::show(const wire::Report& report) {
  // Where the first report begins to count is not known (a resumed run has counted before): its rate is kept
  // apart.
  if (tokens_before_ < 0) {
    first_rate_ = report.tokens_per_second();
  } else if (report.tokens_per_second() > 0) {
    target_tokens_ += report.target_tokens() - tokens_before_;
    seconds_ += double(report.target_tokens() - tokens_before_) / report.tokens_per_second();
  }
  tokens_before_ = report.target_tokens();
  loss_ = report.loss();
  if (form_ == Form::json) print(json_line(json_of(report)));
  if (form_ == Form::lines) print(line_of(report) + "\n");
  if (form_ == Form::live) print("\r\033[K" + line_of(report));
  line_open_ = form_ == Form::live;
  std::fflush(stdout);
}

void Progress::end_line() {
  if (line_open_) print("\n");
  line_open_ = false;
  std::fflush(stdout);
}

void Progress::say(const std::string& message) {
  end_line();
  troupe::say(message);
}

void Progress::finish(const wire::JobEnded& ended) {
  end_line();
  const double rate = seconds_ > 0 ? double(target_tokens_) / seconds_ : first_rate_;
  const auto if_reported = [&](double number) {
    return tokens_before_ < 0 ? nlohmann::json() : nlohmann::json(number);
  };
  if (form_ == Form::json)
    print(json_line(nlohmann::json{{"step", ended.step()},
                                   {"loss", if_reported(loss_)},
                                   {"tokens_per_s", if_reported(rate)},
                                   {"digest", ended.digest()},
                                   {"checkpoint", ended.checkpoint()}}));
  else
    print(fmt::format("step {}: {}\nweights {}\n", ended.step(), ended.checkpoint(), ended.digest()));
  std::fflush(stdout);
}

}  // namespace troupe::actors
