#include "cli/translate.hpp"

#include <algorithm>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "actors/inference/translator.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "cli/generate_options.hpp"
#include "cli/lines.hpp"
#include "data/clean.hpp"
#include "data/files.hpp"
#include "kernels/base/error.hpp"

namespace troupe::cli {

namespace {

constexpr size_t kBatchesAhead = 16;  // batches a thread translates before what is done is written

std::string format_outputs(const std::vector<std::vector<inference::Output>>& outputs, bool numbered,
                           size_t first) {
  std::string text;
  for (size_t i = 0; i < outputs.size(); ++i)
    for (const inference::Output& output : outputs[i])
      text += numbered ? fmt::format("{}\t{:.4f}\t{}\n", first + i, output.score, output.text)
                       : output.text + "\n";
  return text;
}

}  // namespace

int translate(const TranslateOptions& options) {
  const auto trained =
      inference::TrainedModel::load(options.checkpoint, warn, inference::Use::translation, options.precision);
  if (!trained->translates())
    throw error(ErrorKind::usage, "{} is a language model, which does not translate", trained->path());
  const int threads = thread_count(options.threads);
  const inference::Translator translator(trained, options.generate, threads);
  const size_t lines_max = size_t(options.generate.batch_sequences) * size_t(threads) * kBatchesAhead;
  LineReader reader(options.input);
  for (size_t first = 1;;) {
    std::vector<std::string> lines = reader.next(lines_max);
    if (lines.empty()) return kDone;
    const auto bad = std::find_if(lines.begin(), lines.end(), [](const std::string& line) {
      return data::find_invalid_utf8(line) != std::string::npos;
    });
    const bool stops = bad != lines.end();
    lines.erase(bad, lines.end());  // what comes before it is still translated
    const auto cut = [&](size_t index) {
      warn(fmt::format("line {} is longer than the {} tokens the model takes; its end is not translated",
                       first + index, trained->model().config().max_length - 1));
    };
    data::write_all(options.output, format_outputs(translator.run(lines, cut), options.numbered, first),
                    "the translations");
    first += lines.size();
    if (stops)
      throw error(ErrorKind::file,
                  "line {} of the input is not UTF-8; convert it first, as with iconv -t UTF-8", first);
  }
}

void add_translate(CLI::App& app, int& code) {
  CLI::App* command =
      app.add_subcommand("translate", "Translate standard input to standard output, line by line");
  auto options = std::make_shared<TranslateOptions>();
  command
      ->add_option("--checkpoint", options->checkpoint,
                   "A checkpoint, an exported model, or the --out folder of troupe train")
      ->required()
      ->check(not_empty());
  add_generate_options(*command, options->generate, options->threads);
  add_precision_options(*command, options->precision);
  const CLI::Option* const n_best =
      command->add_option("--n-best", options->generate.n_best,
                          "So many translations of each line, as: number, score, text, separated by tabs; "
                          "unless given, the text alone");
  command->callback([options, n_best, &code] {
    options->numbered = n_best->count() > 0;
    code = translate(*options);
  });
}

}  // namespace troupe::cli
