// The main job as a program: prepares Debian's English-French package descriptions, trains a Transformer on two local
// node processes, and prints translations of sentences it has never seen beside what people wrote, with their BLEU.
//
//   translate_debian FOLDER [STEPS]      run from the root of the source tree, for the job file and the troupe program
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string>
#include <thread>

#include <fmt/format.h>

#include "actors/client/train_client.hpp"
#include "actors/config/job.hpp"
#include "actors/inference/evaluation.hpp"
#include "data/prepare.hpp"
#include "kernels/base/cores.hpp"
#include "kernels/base/error.hpp"

using namespace troupe;

namespace {

const int kCores = int(usable_cores());

// Text becomes a dataset folder: cleaned, tokenised, packed, split. Kept when it is there already.
void prepare(const std::string& folder, const std::string& out) {
  if (std::filesystem::exists(out + "/manifest.json")) return;
  data::PrepareOptions options;
  options.out = out;
  options.source.kind = data::SourceKind::debian;
  options.source.source_language = "en";
  options.source.target_language = "fr";
  options.source.cache = folder + "/cache";
  options.tokenizer.vocabulary = 4096;
  fmt::print("{}", data::prepare_local(options, kCores).text());
}

// Two node processes share the steps, from where an earlier run of this program has come to; the weights are the same bytes for any number of them.
int train(const std::string& data, const std::string& out, const std::string& steps) {
  actors::TrainOptions options;
  std::vector<std::string> overrides;
  if (!steps.empty()) overrides.push_back("training.steps=" + steps);
  options.job = config::read_job_file("examples/jobs/demo.toml", overrides);
  options.data = data;
  options.out = out;
  options.resume = std::filesystem::exists(out + "/checkpoints");
  options.nodes = 2;
  options.threads = std::max(1, kCores / 2);
  options.program = "build/release/troupe";
  return actors::train(options);
}

void translate(const std::string& data, const std::string& run) {
  const auto warn = [](const std::string& message) { fmt::print(stderr, "{}\n", message); };
  const auto trained = inference::TrainedModel::load(run, warn);
  const auto dataset = data::Dataset::open(data);
  const inference::Translator translator(trained, model::GenerateOptions{}, kCores);
  const auto quality = inference::evaluate_translation(translator, *dataset, data::Split::test, 0);
  for (size_t i = 0; i < 10; ++i) {
    const size_t at = i * quality.sources.size() / 10;
    fmt::print("\nsource       {}\ntranslation  {}\nreference    {}\n", quality.sources[at], quality.hypotheses[at],
               quality.references[at]);
  }
  fmt::print("\n{}\n{}\n", quality.bleu.text(), quality.chrf.text());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    fmt::print(stderr, "usage: translate_debian FOLDER [STEPS]\n");
    return 2;
  }
  const std::string folder = argv[1];
  try {
    prepare(folder, folder + "/data");
    if (const int code = train(folder + "/data", folder + "/run", argc == 3 ? argv[2] : ""); code != 0) return code;
    translate(folder + "/data", folder + "/run");
    return 0;
  } catch (const std::exception& problem) {
    fmt::print(stderr, "translate_debian: {}\n", problem.what());
    return 1;
  }
}
