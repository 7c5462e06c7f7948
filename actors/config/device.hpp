// What a node computes with, by the name that cluster files and --device give it. A plain value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace troupe::config {

enum class DeviceKind : uint8_t {
  cpu = 1,   // "cpu"
  cuda,      // "cuda:0", "cuda:1": a GPU of the machine
  emulated,  // "emulated": a GPU's kernels on the CPU, slowly: for tests
};

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;  // of the GPU
  bool operator==(const Device&) const = default;
};

// Throws Error(usage) that begins with `where` and says what would be right.
Device parse_device(std::string_view where, std::string_view name);
std::string to_string(const Device& device);

}  // namespace troupe::config
