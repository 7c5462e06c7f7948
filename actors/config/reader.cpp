#include "actors/config/reader.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <numeric>
#include <set>

#include <fmt/format.h>
#include <toml++/toml.h>

#include "kernels/base/error.hpp"

namespace troupe::config {

namespace {

std::string number_text(double value) { return fmt::format("{}", value); }

// As TOML has it, where a number without a point or an exponent is an integer.
std::string real_text(double value) {
  const std::string text = number_text(value);
  return text.find_first_not_of("-0123456789") == std::string::npos ? text + ".0" : text;
}

std::string range_text(Range range, bool integer) {
  if (integer) return fmt::format("a whole number from {} to {}", int64_t(range.least), int64_t(range.most));
  return fmt::format("a number from {} to {}", number_text(range.least), number_text(range.most));
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

std::string choices_text(const std::vector<Choice>& choices) {
  std::string out = "one of";
  for (const auto& choice : choices) out += fmt::format(" \"{}\"", choice.name);
  return out;
}

// Levenshtein distance, for "did you mean".
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t up = row[j];
      row[j] = std::min({up + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0u : 1u)});
      diagonal = up;
    }
  }
  return row[b.size()];
}

std::string suggestion(std::string_view key, const std::vector<std::string>& known) {
  const auto best = std::min_element(known.begin(), known.end(), [&](const auto& a, const auto& b) {
    return distance(key, a) < distance(key, b);
  });
  if (best != known.end() && distance(key, *best) <= 1 + key.size() / 3)
    return fmt::format("; did you mean {}?", *best);
  return fmt::format("; known keys: {}", fmt::join(known, ", "));
}

// Where a message points to: "job.toml:7: model.width".
struct Place {
  std::string_view file;
  std::string prefix;  // for tables: "nodes[2]."
  bool has_lines = true;
  std::string operator()(const toml::node* node, std::string_view key) const {
    const bool knows_line = has_lines && node != nullptr && node->source().begin.line != 0;
    if (!knows_line) return fmt::format("{}: {}{}", file, prefix, key);
    return fmt::format("{}:{}: {}{}", file, node->source().begin.line, prefix, key);
  }
};

std::string kind_of(const toml::node& node) {
  if (node.is_string()) return fmt::format("the string \"{}\"", **node.as_string());
  if (node.is_integer()) return fmt::format("{}", **node.as_integer());
  if (node.is_floating_point()) return real_text(**node.as_floating_point());
  if (node.is_boolean()) return **node.as_boolean() ? "true" : "false";
  if (node.is_array()) return "a list";
  if (node.is_table()) return "a table";
  return "a date or time";
}

// Fills fields from a table and remembers which keys it has used.
class TableReader final : public FieldVisitor {
 public:
  TableReader(const toml::table& table, Place place) : table_(table), place_(std::move(place)) {}

  void integer(std::string_view key, int64_t& value, Range range) override {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    if (!node->is_integer()) fail(*node, key, range_text(range, true));
    const int64_t read = **node->as_integer();
    if (double(read) < range.least || double(read) > range.most) fail(*node, key, range_text(range, true));
    value = read;
  }
  void real(std::string_view key, double& value, Range range) override {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    if (!node->is_number()) fail(*node, key, range_text(range, false));
    const double read = node->is_integer() ? double(**node->as_integer()) : **node->as_floating_point();
    if (!(read >= range.least && read <= range.most)) fail(*node, key, range_text(range, false));
    value = read;
  }
  void boolean(std::string_view key, bool& value) override {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    if (!node->is_boolean()) fail(*node, key, "true or false");
    value = **node->as_boolean();
  }
  void text(std::string_view key, std::string& value) override {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    if (!node->is_string()) fail(*node, key, "a string in quotation marks");
    value = **node->as_string();
  }
  void choice(std::string_view key, int64_t& value, const std::vector<Choice>& choices) override {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const auto found = std::find_if(choices.begin(), choices.end(), [&](const Choice& choice) {
      return node->is_string() && **node->as_string() == choice.name;
    });
    if (found == choices.end()) fail(*node, key, choices_text(choices));
    value = found->value;
  }

  // Throws for the first key of the file that no field asked for.
  void refuse_unknown(const std::vector<std::string>& known, const std::vector<std::string>& tables) const {
    walk(table_, "", known, tables);
  }

 private:
  const toml::node* find(std::string_view key) {
    used_.emplace(key);
    return table_.at_path(key).node();
  }
  [[noreturn]] void fail(const toml::node& node, std::string_view key, const std::string& right) const {
    throw error(ErrorKind::usage, "{} is {}; it must be {}", place_(&node, key), kind_of(node), right);
  }
  void walk(const toml::table& table, const std::string& prefix, const std::vector<std::string>& known,
            const std::vector<std::string>& tables) const {
    for (const auto& [name, node] : table) {
      const std::string key = prefix + std::string(name.str());
      if (name.str().find('.') != std::string_view::npos)  // of one key in quotation marks
        throw error(ErrorKind::usage, "{} is not a setting: leave out the quotation marks", place_(&node, key));
      if (std::find(tables.begin(), tables.end(), key) != tables.end()) continue;
      if (used_.contains(key)) continue;
      if (node.is_table() && std::any_of(known.begin(), known.end(), [&](const std::string& k) {
            return k.starts_with(key + ".");
          })) {
        walk(*node.as_table(), key + ".", known, tables);
        continue;
      }
      throw error(ErrorKind::usage, "{} is not a setting{}", place_(&node, key), suggestion(key, known));
    }
  }

  const toml::table& table_;
  Place place_;
  std::set<std::string, std::less<>> used_;
};

class TextWriter final : public FieldVisitor {
 public:
  void integer(std::string_view key, int64_t& value, Range) override { line(key, fmt::format("{}", value)); }
  void real(std::string_view key, double& value, Range) override { line(key, real_text(value)); }
  void boolean(std::string_view key, bool& value) override { line(key, value ? "true" : "false"); }
  void text(std::string_view key, std::string& value) override { line(key, quoted(value)); }
  void choice(std::string_view key, int64_t& value, const std::vector<Choice>& choices) override {
    for (const auto& choice : choices)
      if (choice.value == value) return line(key, quoted(choice.name));
    TROUPE_CHECK(false, "{} has no choice {}", key, value);
  }
  std::string out;
  std::vector<std::string> keys;

 private:
  void line(std::string_view key, const std::string& value) {
    out += fmt::format("{} = {}\n", key, value);
    keys.emplace_back(key);
  }
};

toml::table parse(std::string_view file, std::string_view text) {
  try {
    return toml::parse(text, file);
  } catch (const toml::parse_error& problem) {
    throw error(ErrorKind::usage, "{}:{}: this is not TOML: {}", file, problem.source().begin.line,
                problem.description());
  }
}

TextWriter write(const Describe& describe) {
  TextWriter writer;
  describe(writer);
  return writer;
}

}  // namespace

void read_toml(std::string_view file, std::string_view text, const Describe& describe,
               const std::vector<std::string>& tables) {
  const toml::table table = parse(file, text);
  TableReader reader(table, Place{file, ""});
  describe(reader);
  auto known = keys(describe);
  known.insert(known.end(), tables.begin(), tables.end());
  reader.refuse_unknown(known, tables);
}

void read_tables(std::string_view file, std::string_view text, std::string_view name,
                 const std::function<Describe(size_t index)>& describe) {
  const toml::table table = parse(file, text);
  const toml::node* node = table.get(name);
  if (node == nullptr) return;
  if (!node->is_array_of_tables())
    throw error(ErrorKind::usage, "{} must be written as [[{}]] tables", Place{file, ""}(node, name), name);
  size_t index = 0;
  for (const auto& entry : *node->as_array()) {
    TableReader reader(*entry.as_table(), Place{file, fmt::format("{}[{}].", name, index)});
    const Describe description = describe(index++);
    description(reader);
    reader.refuse_unknown(keys(description), {});
  }
}

void apply_override(std::string_view assignment, const Describe& describe) {
  const auto equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0)
    throw error(ErrorKind::usage, "--set {}: it must be section.key=value, as in schedule.learning_rate=0.001",
                assignment);
  const std::string key(assignment.substr(0, equals));
  const std::string value(assignment.substr(equals + 1));
  const auto known = keys(describe);
  if (std::find(known.begin(), known.end(), key) == known.end())
    throw error(ErrorKind::usage, "--set {}: {} is not a setting{}", assignment, key, suggestion(key, known));
  const std::string option = fmt::format("--set {}", assignment);
  toml::table table;
  try {
    table = toml::parse(fmt::format("{} = {}", key, value));
  } catch (const toml::parse_error&) {  // a bare word: --set model.norm=post needs no quotation marks
    try {
      table = toml::parse(fmt::format("{} = {}", key, quoted(value)));
    } catch (const toml::parse_error&) {
      throw error(ErrorKind::usage, "{}: its value has characters that no setting may have", option);
    }
  }
  TableReader reader(table, Place{option, "", false});
  describe(reader);
  reader.refuse_unknown(known, {});
}

std::string canonical_text(const Describe& describe) { return write(describe).out; }
std::vector<std::string> keys(const Describe& describe) { return write(describe).keys; }

std::string read_text_file(const std::string& path, size_t bytes_max) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw error(ErrorKind::file, "cannot open {}: {}", path, std::strerror(errno));
  std::string text;
  char part[4096];
  while (in.read(part, sizeof part) || in.gcount() > 0) {
    text.append(part, size_t(in.gcount()));
    if (text.size() > bytes_max)
      throw error(ErrorKind::file, "{} is larger than {} bytes: this is not a configuration file", path, bytes_max);
  }
  if (in.bad()) throw error(ErrorKind::file, "cannot read {}: {}", path, std::strerror(errno));
  return text;
}

}  // namespace troupe::config
