// Checks of options' values, beside those that CLI11 has.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <system_error>

#include <CLI/CLI.hpp>

namespace troupe::cli {

// Further in, an empty text stands for an option that was left out, which is not what "$JOB" means in a
// script that has not set JOB.
inline CLI::Validator not_empty() {
  return CLI::Validator(
      [](const std::string& value) -> std::string { return value.empty() ? "its value is empty" : ""; }, "");
}

// For numbers that all of 64 bits may hold: to CLI11 alone -1, and what is larger, are some of them.
inline CLI::Validator whole_number() {
  return CLI::Validator(
      [](const std::string& text) -> std::string {
        uint64_t number = 0;
        const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
        const bool octal = text.size() > 1 && text[0] == '0';  // to CLI11
        if (failed == std::errc() && end == text.data() + text.size() && !octal) return "";
        return text + " is no whole number from 0 to 18446744073709551615";
      },
      "");
}

// To CLI11 0200 is 128, as it is to C; a step copied from a checkpoint's name means 200.
inline CLI::Validator decimal() {
  return CLI::Validator(
      [](const std::string& text) -> std::string {
        const size_t first = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
        const bool zero_first = text.size() > first + 1 && text[first] == '0' &&
                                text.find_first_not_of("0123456789", first) == std::string::npos;
        return zero_first ? text + " begins with a 0; leave it out" : "";
      },
      "");
}

// Puts it before the other checks of all options of a command, and of its commands, that take whole numbers.
inline void check_whole_numbers(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    const std::string type = option->get_type_name();
    if (type.starts_with("INT") || type.starts_with("UINT")) option->check(decimal());
  }
  for (CLI::App* command : app.get_subcommands({})) check_whole_numbers(*command);
}

}  // namespace troupe::cli
