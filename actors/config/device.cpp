#include "actors/config/device.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include "kernels/base/error.hpp"

namespace troupe::config {

namespace {

constexpr std::string_view kCuda = "cuda:", kEmulated = "emulated", kAll = "all";
constexpr int kIndexMax = 9999;

std::vector<std::string_view> split(std::string_view list) {
  std::vector<std::string_view> items;
  for (size_t at = 0; at <= list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    items.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  return items;
}

std::optional<int> number(std::string_view digits) {
  int value = -1;
  const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (failed != std::errc{} || end != digits.data() + digits.size() || value < 0 || value > kIndexMax)
    return std::nullopt;
  return value;
}

struct Range {
  int first = 0, last = 0;
};

// "3" or "0-3".
std::optional<Range> range(std::string_view item) {
  const size_t dash = std::min(item.find('-'), item.size());
  const auto first = number(item.substr(0, dash));
  const auto last = dash == item.size() ? first : number(item.substr(dash + 1));
  if (!first || !last || *first > *last) return std::nullopt;
  return Range{*first, *last};
}

[[noreturn]] void refuse(std::string_view where, std::string_view name) {
  throw error(ErrorKind::usage,
              "{} is \"{}\"; it must be \"cpu\", or a GPU as in \"cuda:0\", or several as in \"cuda:0,2\", "
              "\"cuda:0-3\" or \"cuda:all\"",
              where, name);
}

[[noreturn]] void refuse_number(std::string_view where, std::string_view name) {
  throw error(ErrorKind::usage, "{} is \"{}\"; a node has 1 to {} devices", where, name, kDevicesMax);
}

std::vector<int> gpus(std::string_view where, std::string_view name) {
  std::vector<int> indices;
  for (const std::string_view item : split(name.substr(kCuda.size()))) {
    const auto found = range(item);
    if (!found) refuse(where, name);
    if (found->last - found->first >= kDevicesMax) refuse_number(where, name);
    for (int i = found->first; i <= found->last; ++i) {
      if (std::find(indices.begin(), indices.end(), i) != indices.end())
        throw error(ErrorKind::usage,
                    "{} is \"{}\", which names GPU {} twice; a GPU has one worker of a node", where, name, i);
      indices.push_back(i);
    }
  }
  if (indices.size() > size_t(kDevicesMax)) refuse_number(where, name);
  return indices;
}

std::vector<int> emulated(std::string_view where, std::string_view name) {
  if (name == kEmulated) return {0};
  if (!name.substr(kEmulated.size()).starts_with(':')) refuse(where, name);
  const auto count = number(name.substr(kEmulated.size() + 1));
  if (!count || *count < 1 || *count > kDevicesMax) refuse_number(where, name);
  std::vector<int> indices;
  for (int i = 0; i < *count; ++i) indices.push_back(i);
  return indices;
}

}  // namespace

Devices parse_devices(std::string_view where, std::string_view name) {
  if (name == "cpu") return {};
  if (name.starts_with(kEmulated)) return {DeviceKind::emulated, emulated(where, name)};
  if (!name.starts_with(kCuda)) refuse(where, name);
  if (name.substr(kCuda.size()) == kAll) return {DeviceKind::cuda, {}};
  return {DeviceKind::cuda, gpus(where, name)};
}

std::string to_string(const Devices& devices) {
  switch (devices.kind) {
    case DeviceKind::cpu:
      return "cpu";
    case DeviceKind::cuda:
      return std::string(kCuda) + (devices.indices.empty()
                                       ? std::string(kAll)
                                       : fmt::format("{}", fmt::join(devices.indices, ",")));
    case DeviceKind::emulated:
      return devices.indices.size() == 1 ? std::string(kEmulated)
                                         : fmt::format("{}:{}", kEmulated, devices.indices.size());
  }
  return "";
}

std::string name_of(DeviceKind kind, int index) {
  return kind == DeviceKind::cuda ? fmt::format("cuda:{}", index) : fmt::format("emulated device {}", index);
}

std::vector<std::string> split_devices(const std::vector<std::string>& lists) {
  std::vector<std::string> nodes;
  for (const std::string& list : lists) {
    bool begins = true;  // of a list the first word begins a node, whatever it is
    for (const std::string_view word : split(list)) {
      const bool goes_on = !begins && (word.empty() || (word[0] >= '0' && word[0] <= '9'));
      if (goes_on)
        nodes.back() += "," + std::string(word);
      else
        nodes.emplace_back(word);
      begins = false;
    }
  }
  return nodes;
}

}  // namespace troupe::config
