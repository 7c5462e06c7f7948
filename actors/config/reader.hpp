// Reads a TOML file into plain structs and says exactly what is wrong with it: file, line, key, what would be right.
//
// A struct is described once, by a function that names each of its fields to a FieldVisitor; reading, overriding
// (--set section.key=value), writing the canonical text and listing the keys all walk that one description.
#pragma once

#include <charconv>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace troupe::config {

struct Range {
  double least = 0;
  double most = 0;
};

// One alternative of an enumerated setting.
struct Choice {
  std::string_view name;
  int64_t value = 0;
};

class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;
  virtual void integer(std::string_view key, int64_t& value, Range range) = 0;
  virtual void real(std::string_view key, double& value, Range range) = 0;
  virtual void boolean(std::string_view key, bool& value) = 0;
  virtual void text(std::string_view key, std::string& value) = 0;
  virtual void choice(std::string_view key, int64_t& value, const std::vector<Choice>& choices) = 0;

  // Fields of other integer and floating types go through the widest one.
  template <typename T>
  void number(std::string_view key, T& value, Range range) {
    if constexpr (std::is_integral_v<T>) {
      auto wide = int64_t(value);
      integer(key, wide, range);
      value = T(wide);
    } else {
      double wide = shortest(value);
      real(key, wide, range);
      value = T(wide);
    }
  }
  // 0.9f is written as 0.9 and not as the double next to it.
  static double shortest(double value) { return value; }
  static double shortest(float value) {
    char text[32];
    const auto end = std::to_chars(text, text + sizeof text, value).ptr;
    double out = 0;
    std::from_chars(text, end, out);
    return out;
  }
  template <typename Enum>
  void pick(std::string_view key, Enum& value, const std::vector<Choice>& choices) {
    auto wide = int64_t(value);
    choice(key, wide, choices);
    value = Enum(wide);
  }
};

// Calls the visitor for every field; keys are "section.key" in their canonical order.
using Describe = std::function<void(FieldVisitor&)>;

// Reads the text of `file` (a name for messages). Keys under an entry of `tables` (arrays of tables such as "nodes")
// are left to read_tables. Throws Error(usage).
void read_toml(std::string_view file, std::string_view text, const Describe& describe,
               const std::vector<std::string>& tables = {});
// For each [[name]] table in order, asks `describe` for a description and fills it.
void read_tables(std::string_view file, std::string_view text, std::string_view name,
                 const std::function<Describe(size_t index)>& describe);
// "section.key=value" as given on a command line. Throws Error(usage) that names it.
void apply_override(std::string_view assignment, const Describe& describe);
// Every field on a line "section.key = value", in order of description: the text that is hashed.
std::string canonical_text(const Describe& describe);
// Every key that a description knows.
std::vector<std::string> keys(const Describe& describe);

// Reads a small text file whole. Throws Error(file).
std::string read_text_file(const std::string& path, size_t bytes_max = 1 << 20);

}  // namespace troupe::config
