// The models and steps that training is measured with.
#pragma once

#include <cstdint>
#include <string>

#include <CLI/CLI.hpp>

#include "model/config.hpp"
#include "model/parameters.hpp"

namespace troupe::bench {

struct WorkloadOptions {
  std::string model = "small", dtype = "bf16";
  int64_t width = 0, layers = 0, sentences = 0, length = 0;  // 0: the model's
};
void add_options(CLI::App& app, WorkloadOptions& options);

struct Workload {
  model::ModelConfig config;
  int64_t sentences = 0, length = 0;  // of a step, on each side
  int64_t tokens() const { return sentences * length; }
};
// Throws Error(usage) when the options make no model.
Workload workload_of(const WorkloadOptions& options);

// Floating-point operations of a step that products must do: 6 a weight and token, and those of attention.
double flops_a_step(const Workload& w, const model::ParameterTable& table);

}  // namespace troupe::bench
