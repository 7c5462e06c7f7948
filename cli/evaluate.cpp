#include "cli/evaluate.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string_view>
#include <system_error>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "actors/inference/evaluation.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "cli/generate_options.hpp"
#include "data/files.hpp"
#include "kernels/base/error.hpp"

namespace troupe::cli {

namespace {

using Clock = std::chrono::steady_clock;

// Indices of `count` samples spread evenly over `all`.
std::vector<size_t> spread(size_t count, size_t all) {
  const size_t shown = std::min(count, all);
  std::vector<size_t> indices;
  for (size_t i = 0; i < shown; ++i) indices.push_back(i * all / shown);
  return indices;
}

struct Report {
  std::string checkpoint, split;
  int64_t step = 0;
  model::LossTotals loss;
  bool translated = false;
  inference::TranslationQuality quality;
  double translate_seconds = 0;
  std::vector<size_t> shown;  // samples to print
};

nlohmann::json to_json(const Report& r) {
  nlohmann::json json = {{"checkpoint", r.checkpoint},
                         {"step", r.step},
                         {"split", r.split},
                         {"tokens", r.loss.tokens},
                         {"loss", r.loss.mean_loss()},
                         {"nll", r.loss.mean_nll()},
                         {"perplexity", std::exp(r.loss.mean_nll())},
                         {"accuracy", double(r.loss.correct) / double(std::max<int64_t>(r.loss.tokens, 1))}};
  if (!r.translated) return json;
  const auto& [bleu, chrf] = std::tie(r.quality.bleu, r.quality.chrf);
  json["sentences"] = r.quality.sources.size();
  json["translate_seconds"] = r.translate_seconds;
  json["bleu"] = {{"score", bleu.score},
                  {"low", bleu.confidence.low},
                  {"high", bleu.confidence.high},
                  {"signature", bleu.signature}};
  json["chrf"] = {{"score", chrf.score},
                  {"low", chrf.confidence.low},
                  {"high", chrf.confidence.high},
                  {"signature", chrf.signature}};
  for (const size_t i : r.shown)
    json["translations"].push_back({{"source", r.quality.sources[i]},
                                    {"translation", r.quality.hypotheses[i]},
                                    {"reference", r.quality.references[i]}});
  return json;
}

void print(const Report& r) {
  for (const size_t i : r.shown)
    fmt::print("source       {}\ntranslation  {}\nreference    {}\n\n", r.quality.sources[i],
               r.quality.hypotheses[i], r.quality.references[i]);
  fmt::print("{} (step {}), {} set\n", r.checkpoint, r.step, r.split);
  fmt::print("loss        {:.4f} a token, {} tokens\n", r.loss.mean_loss(), r.loss.tokens);
  fmt::print("perplexity  {:.3f}\n", std::exp(r.loss.mean_nll()));
  fmt::print("accuracy    {:.2f} % of tokens\n",
             100.0 * double(r.loss.correct) / double(std::max<int64_t>(r.loss.tokens, 1)));
  if (!r.translated) return;
  fmt::print("{}\n{}\n", r.quality.bleu.text(), r.quality.chrf.text());
  fmt::print("{} sentences translated in {:.1f} s\n", r.quality.sources.size(), r.translate_seconds);
}

[[noreturn]] void cannot_write(const std::string& path, const std::string& why) {
  throw error(ErrorKind::file,
              "cannot write the translations to {}: {}; give --output a file that you may write to", path,
              why);
}

// Whether opening it is more than a trial: whoever reads it would take the trial's end for the end of it all.
bool is_stream(const std::string& path) {
  using std::filesystem::file_type;
  std::error_code none;
  const file_type type = std::filesystem::status(path, none).type();
  return type == file_type::fifo || type == file_type::character || type == file_type::socket;
}

// Replaces a file at once or not at all; without lines, looks whether it could and leaves it as it is.
void write_file(const std::string& path, const std::vector<std::string>* lines) {
  std::error_code none;
  const auto target = std::filesystem::weakly_canonical(std::filesystem::absolute(path, none), none);
  if (std::filesystem::is_directory(target, none)) cannot_write(path, std::strerror(EISDIR));
  if (std::filesystem::exists(target, none) && ::access(target.c_str(), W_OK) != 0)
    cannot_write(path, std::strerror(errno));
  try {
    data::FileWriter file(target.parent_path(), target.filename(), false);
    if (lines == nullptr) return;
    for (const std::string& line : *lines) file.append(line + "\n");
    file.commit();
  } catch (const Error& problem) {
    cannot_write(path, problem.what());
  }
}

// The descriptor, where the file is what standard output or error goes to: a new file in its place would have
// neither that nor what is printed. -1: it is another one.
int shared_descriptor(const std::string& path) {
  struct stat file {
  }, open{};
  if (::stat(path.c_str(), &file) != 0) return -1;
  for (const int descriptor : {STDOUT_FILENO, STDERR_FILENO})
    if (::fstat(descriptor, &open) == 0 && open.st_dev == file.st_dev && open.st_ino == file.st_ino)
      return descriptor;
  return -1;
}

void append_to(int descriptor, const std::string& path, const std::vector<std::string>& lines) {
  std::fflush(nullptr);
  try {
    for (const std::string& line : lines) data::write_all(descriptor, line + "\n", path);
  } catch (const Error& problem) {
    cannot_write(path, problem.what());
  }
}

void write_stream(const std::string& path, const std::vector<std::string>& lines) {
  errno = 0;  // a stream says only that something failed
  std::ofstream file(path);
  for (const std::string& line : lines) file << line << '\n';
  file.flush();
  const int reason = errno;
  if (!file) cannot_write(path, std::strerror(reason == 0 ? EIO : reason));
}

// Whether it begins as what Troupe makes: a checkpoint, an exported model, a dataset's tokens or packs.
bool is_troupes_own(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code none;
  if (!fs::is_regular_file(path, none)) return false;
  char magic[8] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  constexpr std::string_view kOwn[] = {"TROUPECK", "TROUPEEX", "TRUPETK1", "TRUPEPI1"};
  return std::find(std::begin(kOwn), std::end(kOwn), std::string_view(magic, sizeof magic)) != std::end(kOwn);
}

// Whether the file is, or would be made, somewhere in the folder.
bool lies_in(const std::string& folder, const std::string& file) {
  namespace fs = std::filesystem;
  std::error_code none;
  const fs::path outer = fs::weakly_canonical(fs::absolute(folder, none), none);
  const fs::path inner = fs::weakly_canonical(fs::absolute(file, none), none);
  if (outer.empty()) return false;
  return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

// Throws where the translations would take the place of what cannot be had again so easily.
void check_output(const EvaluateOptions& options) {
  const std::string& output = options.output;
  if (output.empty()) return;
  if (is_troupes_own(output))
    throw error(ErrorKind::usage,
                "--output {} is a file that troupe has made, a model or part of a dataset; name another file",
                output);
  if (lies_in(options.data, output))
    throw error(ErrorKind::usage, "--output {} lies in the dataset {}; name a file outside of it", output,
                options.data);
}

// What a language model would not use.
bool about_translations(const EvaluateOptions& options) {
  const model::GenerateOptions usual;
  const model::GenerateOptions& given = options.generate;
  return options.show > 0 || options.samples_max > 0 || options.precision.int8 || !options.output.empty() ||
         given.beam != usual.beam || given.length_penalty != usual.length_penalty ||
         given.tokens_max != usual.tokens_max || given.batch_sequences != usual.batch_sequences;
}

}  // namespace

int evaluate(const EvaluateOptions& options) {
  check_output(options);
  const auto trained =
      inference::TrainedModel::load(options.checkpoint, warn, inference::Use::loss, options.precision);
  const auto dataset = data::Dataset::open(options.data);
  inference::check_belongs(*trained, *dataset);
  const data::Split split = options.split == "valid" ? data::Split::valid : data::Split::test;
  if (dataset->samples(split) == 0)
    throw error(
        ErrorKind::usage,
        "the {} set of {} is empty; prepare it with --{} above 0 and ten documents or paragraphs at least",
        options.split, options.data, options.split);
  if (!trained->translates() && about_translations(options))
    throw error(ErrorKind::usage,
                "{} is a language model: --show, --samples, --output, --int8, --beam, --length-penalty, "
                "--max-tokens and --batch are about translations",
                trained->path());
  const int threads = thread_count(options.threads);
  std::optional<inference::Translator> translator;  // has the weights packed once more
  if (trained->translates())
    translator.emplace(trained->packed_for(inference::Use::translation), options.generate, threads);
  const int shared = options.output.empty() ? -1 : shared_descriptor(options.output);
  const bool to_file = !options.output.empty() && shared < 0 && !is_stream(options.output);
  if (to_file) write_file(options.output, nullptr);  // a mistake is told before the work
  Report report{trained->path(), options.split, trained->step(), {}, trained->translates(), {}, 0, {}};
  report.loss = inference::evaluate_loss(*trained, *dataset, split, threads);
  if (report.translated) {
    const auto begin = Clock::now();
    report.quality = inference::evaluate_translation(*translator, *dataset, split, options.samples_max);
    report.translate_seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  report.shown = spread(options.show, report.quality.sources.size());
  if (options.json)
    fmt::print("{}\n", to_json(report).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  else
    print(report);
  if (to_file)
    write_file(options.output, &report.quality.hypotheses);
  else if (shared >= 0)
    append_to(shared, options.output, report.quality.hypotheses);
  else if (!options.output.empty())
    write_stream(options.output, report.quality.hypotheses);
  return kDone;
}

void add_evaluate(CLI::App& app, int& code) {
  CLI::App* command =
      app.add_subcommand("evaluate", "Measure a checkpoint on a held-out set: loss, BLEU, chrF");
  auto options = std::make_shared<EvaluateOptions>();
  command
      ->add_option("--checkpoint", options->checkpoint, "A checkpoint, or the --out folder of troupe train")
      ->required()
      ->check(not_empty());
  command->add_option("--data", options->data, "The dataset folder")->required()->check(not_empty());
  command->add_option("--split", options->split, "Which held-out set")
      ->check(CLI::IsMember({"valid", "test"}))
      ->capture_default_str();
  command->add_option("--samples", options->samples_max, "Translate at most so many; 0: all")
      ->check(whole_number())
      ->capture_default_str();
  command->add_option("--show", options->show, "Print so many translations beside their references")
      ->check(whole_number())
      ->capture_default_str();
  command->add_option("--output", options->output, "Write the translations to this file")->check(not_empty());
  command->add_flag("--json", options->json, "Print one JSON object");
  add_generate_options(*command, options->generate, options->threads);
  add_precision_options(*command, options->precision);
  command->callback([options, &code] { code = evaluate(*options); });
}

}  // namespace troupe::cli
