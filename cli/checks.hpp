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

}  // namespace troupe::cli
