#include "actors/config/device.hpp"

#include <charconv>

#include "kernels/base/error.hpp"

namespace troupe::config {

Device parse_device(std::string_view where, std::string_view name) {
  constexpr std::string_view kCuda = "cuda:";
  if (name == "cpu") return {};
  if (name == "emulated") return {DeviceKind::emulated, 0};
  Device device{DeviceKind::cuda, -1};
  if (name.starts_with(kCuda)) {
    const std::string_view digits = name.substr(kCuda.size());
    const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), device.index);
    if (failed != std::errc{} || end != digits.data() + digits.size()) device.index = -1;
  }
  if (device.index < 0)
    throw error(ErrorKind::usage, "{} is \"{}\"; it must be \"cpu\", or a GPU as in \"cuda:0\"", where, name);
  return device;
}

std::string to_string(const Device& device) {
  switch (device.kind) {
    case DeviceKind::cpu:
      return "cpu";
    case DeviceKind::cuda:
      return fmt::format("cuda:{}", device.index);
    case DeviceKind::emulated:
      return "emulated";
  }
  return "";
}

}  // namespace troupe::config
