#include "data/sources.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <optional>

#include "data/lines.hpp"
#include "kernels/base/error.hpp"

namespace troupe::data {
namespace {

constexpr size_t kTextDocumentBytes = 64
                                      << 10;  // a longer stretch without a blank line is cut at a line's end

LineOptions line_options(const SourceOptions& options) {
  return {options.line_bytes_max, options.skip_invalid_utf8};
}

uint64_t file_size(const std::string& path) {
  std::error_code ignored;
  const auto size = std::filesystem::file_size(path, ignored);
  return ignored ? 0 : size;
}

void require_path(const std::string& path, std::string_view what) {
  if (path.empty()) throw error(ErrorKind::usage, "cannot prepare: no {} was given", what);
  std::error_code none;  // what is wrong with a path is said when it is opened
  if (std::filesystem::is_directory(path, none))
    throw error(ErrorKind::file, "cannot read {}: it is a folder; give the path of a UTF-8 text file", path);
  if (std::filesystem::exists(path, none) && !std::filesystem::is_regular_file(path, none))
    throw error(ErrorKind::file,
                "cannot read {}: it is no plain file; the text is read twice, so write it to a file first",
                path);
}

class AlignedSource : public DocumentSource {
 public:
  explicit AlignedSource(const SourceOptions& options) : options_(options) {
    require_path(options.source_path, "file with the source sentences");
    require_path(options.target_path, "file with the target sentences");
    AlignedSource::rewind();
  }
  DatasetKind kind() const override { return DatasetKind::pairs; }
  void rewind() override {
    source_.emplace(options_.source_path, line_options(options_));
    target_.emplace(options_.target_path, line_options(options_));
  }
  bool next(RawDocument* document) override {
    std::string_view source, target;
    const bool more_source = source_->next(&source);
    const bool more_target = target_->next(&target);
    if (more_source != more_target) {
      const auto& shorter = more_source ? *target_ : *source_;
      const auto& longer = more_source ? *source_ : *target_;
      throw error(
          ErrorKind::file,
          "cannot align {} and {}: {} ends after line {} while {} goes on; line n of one file must be the "
          "translation of line n of the other",
          options_.source_path, options_.target_path, shorter.path(), shorter.line_number(), longer.path());
    }
    if (!more_source) return false;
    *document = {};
    if (source_->line_invalid() || target_->line_invalid()) return true;  // counted already
    document->source.emplace_back(source);
    document->target.emplace_back(target);
    return true;
  }
  uint64_t bytes_read() const override { return source_->bytes_read() + target_->bytes_read(); }
  uint64_t bytes_total() const override {
    return file_size(options_.source_path) + file_size(options_.target_path);
  }
  Counts dropped() const override {
    const uint64_t invalid = source_->invalid_lines() + target_->invalid_lines();
    return invalid == 0 ? Counts{} : Counts{{"lines_not_utf8", invalid}};
  }
  std::string description() const override { return options_.source_path + " and " + options_.target_path; }

 private:
  const SourceOptions& options_;
  std::optional<LineReader> source_, target_;
};

// One file read line by line; `Derived` makes documents of the lines.
class FileSource : public DocumentSource {
 public:
  explicit FileSource(const SourceOptions& options) : options_(options) {
    require_path(options.source_path, "file");
    FileSource::rewind();
  }
  void rewind() override { lines_.emplace(options_.source_path, line_options(options_)); }
  uint64_t bytes_read() const override { return lines_->bytes_read(); }
  uint64_t bytes_total() const override { return file_size(options_.source_path); }
  Counts dropped() const override {
    return lines_->invalid_lines() == 0 ? Counts{} : Counts{{"lines_not_utf8", lines_->invalid_lines()}};
  }
  std::string description() const override { return options_.source_path; }

 protected:
  const SourceOptions& options_;
  std::optional<LineReader> lines_;
};

class TsvSource : public FileSource {
 public:
  explicit TsvSource(const SourceOptions& options) : FileSource(options) {
    const auto check = [](int column, int least, const char* name) {
      if (column < least || column > 1000)
        throw error(ErrorKind::usage, "cannot use column {} as the {}: choose {} to 1000", column, name,
                    least);
    };
    check(options.tsv_source_column, 1, "source");
    check(options.tsv_target_column, 1, "target");
    check(options.tsv_label_column, 0, "label");
  }
  DatasetKind kind() const override { return DatasetKind::pairs; }
  bool next(RawDocument* document) override {
    std::string_view line;
    if (!lines_->next(&line)) return false;
    *document = {};
    if (lines_->line_invalid()) return true;  // counted already
    document->source.assign(1, column(line, options_.tsv_source_column));
    document->target.assign(1, column(line, options_.tsv_target_column));
    document->label = options_.tsv_label_column == 0 ? "" : column(line, options_.tsv_label_column);
    return true;
  }

 private:
  std::string column(std::string_view line, int number) const {
    if (line.empty()) return {};  // a blank line is an empty pair, and counted as such
    std::string_view rest = line;
    for (int i = 1; i < number; ++i) {
      const size_t tab = rest.find('\t');
      if (tab == std::string_view::npos)
        throw error(
            ErrorKind::file,
            "cannot use {}:{}: the line has {} column{} separated by tabs, and column {} was asked for",
            lines_->path(), lines_->line_number(), i, i == 1 ? "" : "s", number);
      rest.remove_prefix(tab + 1);
    }
    return std::string(rest.substr(0, rest.find('\t')));
  }
};

class TextSource : public FileSource {
 public:
  using FileSource::FileSource;
  DatasetKind kind() const override { return DatasetKind::text; }
  bool next(RawDocument* document) override {
    std::string text;
    std::string_view line;
    while (text.size() < kTextDocumentBytes && lines_->next(&line)) {
      if (lines_->line_invalid()) continue;  // it is left out, so it ends no document
      if (line.find_first_not_of(" \t") == std::string_view::npos) {
        if (text.empty()) continue;
        break;
      }
      if (!text.empty()) text += ' ';
      text += line;
    }
    if (text.empty()) return false;
    document->label.clear();
    document->source.clear();
    document->target.assign(1, std::move(text));
    return true;
  }
};

class MemorySource : public DocumentSource {
 public:
  explicit MemorySource(const SourceOptions& options) : options_(options) {
    for (const auto& document : options.documents) {
      const bool text = document.source.empty();
      if (text != options.documents.front().source.empty() ||
          (!text && document.source.size() != document.target.size()))
        throw error(ErrorKind::usage,
                    "cannot prepare documents whose source and target paragraphs differ in number");
    }
  }
  DatasetKind kind() const override {
    const bool text = !options_.documents.empty() && options_.documents.front().source.empty();
    return text ? DatasetKind::text : DatasetKind::pairs;
  }
  bool next(RawDocument* document) override {
    if (next_ == options_.documents.size()) return false;
    *document = options_.documents[next_++];
    return true;
  }
  void rewind() override { next_ = 0; }
  uint64_t bytes_read() const override { return next_; }
  uint64_t bytes_total() const override { return options_.documents.size(); }
  std::string description() const override { return "the documents given"; }

 private:
  const SourceOptions& options_;
  size_t next_ = 0;
};

}  // namespace

void check_language(const std::string& language) {
  const bool good = !language.empty() && language.size() <= 16 &&
                    std::all_of(language.begin(), language.end(),
                                [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '@'; });
  if (!good)
    throw error(ErrorKind::usage, "cannot use \"{}\" as a language: give codes such as en-fr", language);
}

std::unique_ptr<DocumentSource> open_source(const SourceOptions& options, const std::string& work_folder,
                                            const ProgressFunction& progress) {
  switch (options.kind) {
    case SourceKind::aligned:
      return std::make_unique<AlignedSource>(options);
    case SourceKind::tsv:
      return std::make_unique<TsvSource>(options);
    case SourceKind::text:
      return std::make_unique<TextSource>(options);
    case SourceKind::debian:
      return open_debian_source(options, work_folder, progress);
    case SourceKind::memory:
      return std::make_unique<MemorySource>(options);
  }
  throw CheckFailure("unknown source");
}

}  // namespace troupe::data
