#include "data/prepare.hpp"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <stop_token>
#include <thread>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "actors/client/cluster_client.hpp"
#include "actors/client/prepare_cluster.hpp"
#include "actors/client/stop_signals.hpp"
#include "cli/checks.hpp"
#include "cli/commands.hpp"
#include "kernels/base/cores.hpp"
#include "kernels/base/error.hpp"

namespace troupe::cli {

namespace {

// As for every tokenizer that falls back to bytes. What a text needs beyond the least shows when it is read.
constexpr int32_t kVocabularyMin = 272, kVocabularyMax = 1'000'000;

struct PrepareArguments {
  data::PrepareOptions options;
  std::vector<std::string> aligned;
  std::string tsv, text, source, unit = "document", tokenizer = "bpe";
  int threads = 0;
  int64_t nodes = 0;  // 0: this process does all of it
  std::string cluster;
};

std::pair<std::string, std::string> split_pair(const std::string& text, char separator, const char* what) {
  const auto at = text.find(separator);
  if (at == std::string::npos || at == 0 || at + 1 == text.size())
    throw error(ErrorKind::usage, "{} is \"{}\"; it must be two parts joined by '{}'", what, text, separator);
  return {text.substr(0, at), text.substr(at + 1)};
}

// Exactly one source must be named; turns the flags into SourceOptions.
data::SourceOptions source_of(const PrepareArguments& a) {
  data::SourceOptions out = a.options.source;
  const int named =
      int(!a.aligned.empty()) + int(!a.tsv.empty()) + int(!a.text.empty()) + int(!a.source.empty());
  if (named != 1)
    throw error(
        ErrorKind::usage,
        "{} sources named; name one of --aligned SOURCE TARGET, --tsv FILE, --text FILE, --source debian",
        named);
  if (!a.aligned.empty()) {
    out.kind = data::SourceKind::aligned;
    out.source_path = a.aligned[0];
    out.target_path = a.aligned[1];
  } else if (!a.tsv.empty()) {
    out.kind = data::SourceKind::tsv;
    out.source_path = a.tsv;
  } else if (!a.text.empty()) {
    out.kind = data::SourceKind::text;
    out.source_path = a.text;
  } else {
    out.kind = data::SourceKind::debian;
    if (out.source_language.empty()) out.source_language = "en", out.target_language = "fr";
  }
  return out;
}

bool on_terminal() {
  return isatty(STDERR_FILENO) == 1;
}

// One live line on a terminal, one line a phase elsewhere.
data::ProgressFunction progress_line() {
  return [terminal = on_terminal(), last = std::string()](const data::PrepareProgress& p) mutable {
    if (terminal) {
      const std::string share =
          p.total > 0 ? fmt::format("{:3.0f} %", 100.0 * double(p.done) / double(p.total)) : "";
      say_unended(fmt::format("\r\033[K{} {}", p.phase, share));
    } else if (last != p.phase) {
      last = p.phase;
      say(last);
    }
  };
}

// Clears the live line when the work is done, or has failed and an error follows.
struct ClearLine {
  ~ClearLine() {
    if (on_terminal()) say_unended("\r\033[K");
  }
};

// SIGINT or SIGTERM, after which the work ends where it next asks. A second one ends the process at once:
// nothing asks while a tokenizer is trained. Made before any thread is.
class Cancellation {
 public:
  Cancellation() : watcher_([this](const std::stop_token& over) { watch(over); }) {}
  bool asked() const { return asked_; }

 private:
  static constexpr std::chrono::milliseconds kPoll{20};

  void watch(const std::stop_token& over) {
    for (; !over.stop_requested(); std::this_thread::sleep_for(kPoll)) {
      if (!signals_.arrived()) continue;
      if (asked_.exchange(true)) std::_Exit(kInterrupted);
      say(fmt::format("{}stopping; once more to leave at once", on_terminal() ? "\r\033[K" : ""));
    }
  }

  const actors::StopSignals signals_;
  std::atomic<bool> asked_{false};
  std::jthread watcher_;  // the last one: it uses the others
};

data::PrepareReport prepare(const PrepareArguments& a, int threads) {
  const ClearLine at_the_end;
  const Cancellation cancellation;
  const auto give_up = [&] { return cancellation.asked(); };
  const data::ProgressFunction progress = [&, line = progress_line()](const data::PrepareProgress& at) {
    if (give_up()) throw error(ErrorKind::cancelled, "stopped before the dataset was whole");
    line(at);
  };
  if (!a.cluster.empty()) {
    const config::ClusterConfig cluster = config::read_cluster_file(a.cluster);
    actors::ClusterClient client(cluster);
    client.wait_for_links(std::chrono::milliseconds(cluster.patience_ms) + std::chrono::seconds(3), 0,
                          give_up);
    return actors::prepare_on_cluster(a.options, client, threads, progress, give_up);
  }
  if (a.nodes > 0)
    return actors::prepare_on_local_nodes(a.options, a.nodes, std::max<int64_t>(1, threads / a.nodes),
                                          own_program(), progress, give_up);
  return data::prepare_local(a.options, threads, progress);
}

void run(PrepareArguments& a) {
  a.options.source = source_of(a);
  const int threads = a.threads > 0 ? a.threads : int(usable_cores());
  const data::PrepareReport report = prepare(a, threads);
  fmt::print("{}", report.text());
}

void add_source_options(CLI::App& command, PrepareArguments& a) {
  data::SourceOptions& o = a.options.source;
  command.add_option("--aligned", a.aligned, "Two files of the same number of lines: source, target")
      ->expected(2)
      ->check(not_empty());
  auto* tsv = command.add_option("--tsv", a.tsv, "One file with a pair a line, separated by tabs")
                  ->check(not_empty());
  auto* text = command
                   .add_option("--text", a.text,
                               "One plain text file, for a language model; blank lines end documents")
                   ->check(not_empty());
  auto* debian = command.add_option("--source", a.source, "debian: Debian's translated package descriptions")
                     ->check(CLI::IsMember({"debian"}));
  const auto set_pair = [&o](const std::string& pair) {
    std::tie(o.source_language, o.target_language) = split_pair(pair, '-', "--pair");
  };
  command
      .add_option_function<std::string>(
          "--pair", set_pair, "Languages of source and target; of --source debian, unless given, en-fr")
      ->excludes(text);
  auto* cache = command.add_option("--cache", o.cache, "Where downloaded lists are kept")
                    ->needs(debian)
                    ->check(not_empty());
  command.add_option("--apt-lists", o.apt_lists, "Use these downloaded lists instead of the network")
      ->needs(debian)
      ->excludes(cache)
      ->check(not_empty());
  command.add_option("--tsv-source-column", o.tsv_source_column, "Column of the source, from 1")->needs(tsv);
  command.add_option("--tsv-target-column", o.tsv_target_column, "Column of the target, from 1")->needs(tsv);
  command.add_option("--tsv-label-column", o.tsv_label_column, "Column of a label; 0: none")->needs(tsv);
  command
      .add_flag("--skip-invalid-utf8", o.skip_invalid_utf8,
                "Leave out lines that are not UTF-8 instead of stopping")
      ->excludes(debian);
}

void add_tokenizer_options(CLI::App& command, PrepareArguments& a) {
  auto* vocabulary =
      command.add_option("--vocabulary", a.options.tokenizer.vocabulary, "Entries of the tokenizer")
          ->check(CLI::Range(kVocabularyMin, kVocabularyMax))
          ->capture_default_str();
  auto* kind = command.add_option("--tokenizer", a.tokenizer, "unigram or bpe")
                   ->check(CLI::IsMember({"unigram", "bpe"}))
                   ->default_val("bpe");
  auto* sentences = command
                        .add_option("--tokenizer-sentences", a.options.tokenizer_sentences,
                                    "How many the tokenizer is trained on at most, of 320 bytes on average")
                        ->capture_default_str();
  command
      .add_option("--tokenizer-file", a.options.tokenizer_file,
                  "Use this SentencePiece model instead of training one")
      ->check(not_empty())
      ->excludes(vocabulary)
      ->excludes(kind)
      ->excludes(sentences);
}

}  // namespace

void add_prepare(CLI::App& app, int&) {
  auto a = std::make_shared<PrepareArguments>();
  CLI::App* command = app.add_subcommand("prepare", "Turn text into a dataset: clean, tokenise, split, pack");
  auto& o = a->options;
  command->add_option("--out", o.out, "Dataset folder to write")->required()->check(not_empty());
  command->add_flag("--overwrite", o.overwrite, "Replace a dataset that is there already");
  add_source_options(*command, *a);
  const CLI::Option* const characters_max =
      command->add_option("--characters-max", o.clean.characters_max, "Longest side kept, in characters")
          ->capture_default_str();
  command->add_option("--length-ratio-max", o.clean.length_ratio_max, "Largest ratio of the sides' lengths")
      ->capture_default_str()
      ->excludes(command->get_option("--text"));
  command->add_flag("--compatibility-forms", o.clean.compatibility_forms, "Normalise to NFKC instead of NFC");
  add_tokenizer_options(*command, *a);
  command->add_option("--split", a->unit, "What a sample is: document, sentence or token")
      ->check(CLI::IsMember({"document", "sentence", "token"}))
      ->default_val("document");
  command->add_option("--pack-tokens", o.pack_tokens, "Padded tokens of a pack, each side")
      ->capture_default_str();
  command->add_option("--max-length", o.max_length, "Longest sample in tokens")->capture_default_str();
  command->add_option("--valid", o.valid_samples, "Validation paragraphs (documents of --text), about")
      ->capture_default_str();
  command->add_option("--test", o.test_samples, "Test paragraphs (documents of --text), about")
      ->capture_default_str();
  command->add_option("--threads", a->threads, "Loaders; 0: one a core")->check(CLI::Range(0, 1024));
  auto* nodes = command->add_option("--nodes", a->nodes, "Spread the loaders over this many node processes")
                    ->check(CLI::Range(1, 1024));
  command->add_option("--cluster", a->cluster, "Use the loaders of the running nodes of this cluster file")
      ->excludes(nodes)
      ->check(not_empty());
  command->callback([a, characters_max] {
    if (a->unit == "token" && characters_max->count() > 0)
      throw error(ErrorKind::usage,
                  "--characters-max leaves out long samples; --split token keeps text of any length");
    a->options.unit = a->unit == "token"      ? data::SampleUnit::token
                      : a->unit == "sentence" ? data::SampleUnit::sentence
                                              : data::SampleUnit::document;
    a->options.tokenizer.kind =
        a->tokenizer == "bpe" ? data::TokenizerKind::bpe : data::TokenizerKind::unigram;
    run(*a);
  });
}

}  // namespace troupe::cli
