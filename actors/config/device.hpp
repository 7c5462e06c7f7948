// What a node computes with, by the name that cluster files and --device give it: the CPU, or devices of one
// kind, one worker each. A plain value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::config {

enum class DeviceKind : uint8_t {
  cpu = 1,   // "cpu"
  cuda,      // GPUs of the machine: "cuda:0", "cuda:0,2", "cuda:0-3", "cuda:all"
  emulated,  // a GPU's kernels on the CPU, slowly, for tests: "emulated", or several: "emulated:2"
};

constexpr int kDevicesMax = 64;  // of a node

struct Devices {
  DeviceKind kind = DeviceKind::cpu;
  std::vector<int> indices;  // each once; of "cuda:all" none, until the machine has been asked
  bool operator==(const Devices&) const = default;
};

// Throws Error(usage) that begins with `where` and says what would be right.
Devices parse_devices(std::string_view where, std::string_view name);
std::string to_string(const Devices& devices);
// One of them, for people: "cuda:2", "emulated device 1".
std::string name_of(DeviceKind kind, int index);

// The nodes' devices from what --device was given, with commas between them: one that begins with a digit
// goes on with the list before, so that "cuda:0,1,cuda:2" is "cuda:0,1" and "cuda:2".
std::vector<std::string> split_devices(const std::vector<std::string>& lists);

}  // namespace troupe::config
