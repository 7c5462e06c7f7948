// The flags that translate, evaluate and export share.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

#include "actors/inference/translator.hpp"
#include "kernels/base/cores.hpp"
#include "model/generate.hpp"

namespace troupe::cli {

inline void add_precision_options(CLI::App& command, inference::Precision& precision) {
  command.add_flag("--int8", precision.int8, "8-bit products: faster, at a small loss of quality");
  command
      .add_option_function<std::string>(
          "--compute",
          [&precision](const std::string& name) {
            precision.compute = name == "f32" ? kernels::DType::f32 : kernels::DType::bf16;
          },
          "Activations, and products without --int8: f32 or bf16; unless given, as it was trained")
      ->check(CLI::IsMember({"f32", "bf16"}));
}

inline void add_generate_options(CLI::App& command, model::GenerateOptions& options, int& threads) {
  command.add_option("--beam", options.beam, "Hypotheses kept; 1: greedy")->capture_default_str();
  command
      .add_option("--length-penalty", options.length_penalty, "Exponent of Wu et al. 2016; larger: longer")
      ->capture_default_str();
  command
      .add_option("--max-tokens", options.tokens_max,
                  "Longest output in tokens; 0: what the model takes. Never more than 16 and three times the "
                  "sentence's own")
      ->capture_default_str();
  command
      .add_option("--batch", options.batch_sequences,
                  "Sentences of a batch at most; never more than 4096 tokens of them")
      ->capture_default_str();
  command.add_option("--threads", threads, "0: one a core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
}

inline int thread_count(int asked) {
  return asked > 0 ? asked : int(usable_cores());
}

}  // namespace troupe::cli
