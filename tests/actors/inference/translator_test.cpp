#include "actors/inference/translator.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "data/clean.hpp"
#include "kernels/scratch.hpp"
#include "model/checkpoint.hpp"
#include "model/parameters.hpp"
#include "tests/support/process.hpp"

using namespace troupe;

namespace {

// A language model of random weights, as a checkpoint.
std::string save_language_model(const test::TemporaryFolder& folder) {
  std::vector<std::string> text;
  for (int i = 0; i < 200; ++i)
    text.push_back("line " + std::to_string(i * 7919 % 1009) + " of made up text");
  data::TokenizerOptions options;
  options.vocabulary = 300;
  const data::Tokenizer tokenizer(data::train_tokenizer(options, text), "tokenizer");
  model::CheckpointInfo info;
  info.tokenizer = tokenizer.model_bytes();
  info.model.family = model::Family::decoder;
  info.model.vocabulary = tokenizer.vocabulary_size();
  info.model.pad_id = tokenizer.pad_id();
  info.model.unk_id = tokenizer.unk_id();
  info.model.bos_id = tokenizer.bos_id();
  info.model.eos_id = tokenizer.eos_id();
  info.model.width = 16;
  info.model.inner = 32;
  info.model.heads = 2;
  info.model.encoder_layers = 0;
  info.model.decoder_layers = 1;
  info.model.max_length = 32;
  info.model.compute = kernels::DType::f32;
  const std::string path = folder / "model.troupe";
  model::save_checkpoint(path, info,
                         model::first_state(kernels::allocate_host, *model::make_model(info.model), 3));
  return path;
}

}  // namespace

TEST_CASE("a prompt that is too long is continued at its end, with room for what comes") {
  const test::TemporaryFolder folder;
  const auto trained = inference::TrainedModel::load(save_language_model(folder), {});
  const inference::Translator translator(trained, {}, 1);
  std::string prompt;
  for (int i = 0; i < 60; ++i) prompt += "line " + std::to_string(i) + " ";
  std::vector<size_t> cut;
  const auto outputs =
      translator.run(std::vector<std::string>{"line 1", prompt}, [&](size_t line) { cut.push_back(line); });
  CHECK(cut == std::vector<size_t>{1});

  const std::vector<int32_t> ids = trained->tokenizer().encode(data::clean_line(prompt, false));
  REQUIRE(ids.size() > 31);
  const std::vector<std::vector<int32_t>> ends{{ids.end() - 15, ids.end()}};
  const auto expected =
      model::Generator(trained->backend(), trained->model(), trained->weights(), {}).generate(ends, 1);
  CHECK(expected.at(0).at(0).tokens.size() > 1);
  CHECK(outputs.at(1).at(0).log_probability == expected.at(0).at(0).log_probability);
}
