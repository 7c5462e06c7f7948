// `troupe evaluate`: loss, perplexity, BLEU and chrF of a trained model on a held-out set of a dataset.
#pragma once

#include <cstdint>
#include <string>

#include "actors/inference/translator.hpp"
#include "model/generate.hpp"

namespace troupe::cli {

struct EvaluateOptions {
  std::string checkpoint, data;
  std::string split = "test";  // or "valid"
  model::GenerateOptions generate;
  uint64_t show = 0;               // translations printed beside source and reference, spread over the set
  uint64_t samples_max = 0;        // translated; 0: all. The loss is over the whole set
  inference::Precision precision;  // 8 bits are for translations alone
  int threads = 0;                 // 0: one a core
  std::string output;              // file for the translations; empty: none
  bool json = false;
};

// Prints a report on standard output; returns the exit code. Throws Error.
int evaluate(const EvaluateOptions& options);

}  // namespace troupe::cli
