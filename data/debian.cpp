#include <algorithm>
#include <filesystem>
#include <map>
#include <unordered_map>

#include "data/clean.hpp"
#include "data/files.hpp"
#include "data/sources.hpp"
#include "kernels/base/error.hpp"

namespace troupe::data {
namespace {

// A description as it stands in a Translation file: views into the file's text.
struct Description {
  std::string_view package, summary, body;
};

std::vector<std::string> files_ending(const std::string& folder, const std::string& ending) {
  std::error_code reason;
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder, reason))
    if (entry.path().filename().string().ends_with(ending)) paths.push_back(entry.path().string());
  if (reason)
    throw error(ErrorKind::file,
                "cannot read apt's lists in {}: {}; give a folder as apt keeps it in "
                "/var/lib/apt/lists, with plain files",
                folder, reason.message());
  std::sort(paths.begin(), paths.end());
  return paths;
}

// Calls `use` for every paragraph of a control file (separated by blank lines).
template <typename Use>
void for_each_stanza(std::string_view text, const Use& use) {
  while (!text.empty()) {
    const size_t end = text.find("\n\n");
    use(text.substr(0, end));
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 2);
  }
}

// The value of a one-line field, empty when there is none.
std::string_view field(std::string_view stanza, std::string_view name) {
  size_t at = stanza.starts_with(name) ? 0 : std::string_view::npos;
  if (at != 0) {
    for (at = stanza.find(name); at != std::string_view::npos && stanza[at - 1] != '\n';)
      at = stanza.find(name, at + 1);
    if (at == std::string_view::npos) return {};
  }
  const std::string_view value = stanza.substr(at + name.size());
  return value.substr(0, value.find('\n'));
}

// Calls `use(md5, description)` for every description of a Translation file, in the file's order.
template <typename Use>
void for_each_description(std::string_view text, const std::string& language, const Use& use) {
  const std::string name = "Description-" + language + ": ";
  for_each_stanza(text, [&](std::string_view stanza) {
    const std::string_view md5 = field(stanza, "Description-md5: ");
    const size_t at = stanza.find(name);
    if (md5.empty() || at == std::string_view::npos) return;
    std::string_view rest = stanza.substr(at + name.size());
    Description description;
    description.package = field(stanza, "Package: ");
    const size_t end = rest.find('\n');
    description.summary = rest.substr(0, end);
    if (end != std::string_view::npos) description.body = rest.substr(end + 1);
    use(md5, description);
  });
}

// Length of the list marker that a line of a description begins with ("* ", "- ", "1. ", "— "), 0 for none.
size_t marker_length(std::string_view line) {
  static constexpr std::string_view kMarkers[] = {
      "* ", "- ",        "+ ",        "o ",        "• ",        "– ",       "— ",
      "·",  "-\xC2\xA0", "–\xC2\xA0", "—\xC2\xA0", "*\xC2\xA0", "•\xC2\xA0"};
  for (const auto marker : kMarkers)
    if (line.starts_with(marker)) return marker.size();
  size_t digits = 0;
  while (digits < line.size() && line[digits] >= '0' && line[digits] <= '9') ++digits;
  const bool numbered = digits > 0 && digits + 1 < line.size() &&
                        (line[digits] == '.' || line[digits] == ')') && line[digits + 1] == ' ';
  return numbered ? digits + 2 : 0;
}

// The paragraphs of a description's body, unwrapped. With `items`, list items count as paragraphs and lose
// their mark.
std::vector<std::string> paragraphs(std::string_view body, bool items) {
  std::vector<std::string> all;
  bool open = false;
  while (!body.empty()) {
    const size_t end = body.find('\n');
    std::string_view line = body.substr(0, end);
    body.remove_prefix(end == std::string_view::npos ? body.size() : end + 1);
    if (!line.starts_with(' ')) break;  // the next field
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    if (line == "." || line.empty()) {
      open = false;
      continue;
    }
    const size_t marker = items ? marker_length(line) : 0;
    line.remove_prefix(marker);
    if (!open || marker > 0) {
      all.emplace_back(line);
    } else {
      all.back() += ' ';
      all.back() += line;
    }
    open = true;
  }
  return all;
}

class DebianSource : public DocumentSource {
 public:
  DebianSource(const SourceOptions& options, const std::string& lists)
      : source_language_(options.source_language), target_language_(options.target_language), lists_(lists) {
    const std::string& first = source_language_.empty() ? target_language_ : source_language_;
    load(first, &first_texts_);
    if (!source_language_.empty()) load(target_language_, &second_texts_);
    for (const auto& text : second_texts_)
      for_each_description(text, target_language_, [&](std::string_view md5, const Description& description) {
        translations_.emplace(md5, description);
      });
    for (const auto& path : files_ending(lists, "_Packages")) load_sections(path);
    for (const auto& text : first_texts_)
      for_each_description(text, first, [&](std::string_view md5, const Description& description) {
        if (!seen_.emplace(md5, true).second) return;
        if (kind() == DatasetKind::text || translations_.count(md5) > 0)
          descriptions_.emplace_back(md5, description);
      });
    seen_.clear();
  }
  DatasetKind kind() const override {
    return source_language_.empty() ? DatasetKind::text : DatasetKind::pairs;
  }
  void rewind() override {
    next_ = 0;
    unaligned_ = 0;
  }
  bool next(RawDocument* document) override {
    if (next_ == descriptions_.size()) return false;
    const auto& [md5, description] = descriptions_[next_++];
    const auto section = sections_.find(description.package);
    document->label = section == sections_.end() ? "" : std::string(section->second);
    document->source.clear();
    if (kind() == DatasetKind::text) {
      document->target = paragraphs(description.body, false);
      document->target.emplace(document->target.begin(), description.summary);
      return true;
    }
    align(description, translations_.at(md5), document);
    return true;
  }
  uint64_t bytes_read() const override { return next_; }
  uint64_t bytes_total() const override { return descriptions_.size(); }
  Counts dropped() const override {
    return unaligned_ == 0 ? Counts{} : Counts{{"descriptions_not_aligned", unaligned_}};
  }
  std::string description() const override { return "Debian's package descriptions in " + lists_; }

 private:
  void load(const std::string& language, std::vector<std::string>* texts) const {
    for (const auto& path : files_ending(lists_, "Translation-" + language)) {
      texts->push_back(read_file(path));
      const size_t invalid = find_invalid_utf8(texts->back());
      if (invalid != std::string_view::npos)
        throw error(ErrorKind::corrupt, "cannot use {}: byte {} is not UTF-8; fetch the lists again", path,
                    invalid);
    }
    if (texts->empty())
      throw error(
          ErrorKind::file,
          "cannot read Debian's package descriptions: {} has no file that ends in Translation-{}; unpack the "
          "lists, or let apt fetch them by leaving --apt-lists out",
          lists_, language);
  }

  // Keeps name and section of each package, not the 50 MB around them.
  void load_sections(const std::string& path) {
    const MappedFile file(path);
    for_each_stanza(file.bytes(), [&](std::string_view stanza) {
      const std::string_view package = field(stanza, "Package: "), section = field(stanza, "Section: ");
      if (!package.empty() && !section.empty()) sections_.emplace(package, section);
    });
  }

  void align(const Description& source, const Description& target, RawDocument* document) {
    document->target.clear();
    for (const bool items : {true, false}) {
      document->source = paragraphs(source.body, items);
      document->target = paragraphs(target.body, items);
      if (document->source.size() == document->target.size()) break;
    }
    if (document->source.size() != document->target.size()) {
      ++unaligned_;
      document->source.clear();
      document->target.clear();
    }
    document->source.emplace(document->source.begin(), source.summary);
    document->target.emplace(document->target.begin(), target.summary);
  }

  std::string source_language_, target_language_, lists_;
  std::vector<std::string> first_texts_, second_texts_;
  std::unordered_map<std::string_view, Description> translations_;  // by Description-md5
  std::unordered_map<std::string_view, bool> seen_;
  std::map<std::string, std::string, std::less<>> sections_;
  std::vector<std::pair<std::string_view, Description>> descriptions_;
  size_t next_ = 0;
  uint64_t unaligned_ = 0;
};

}  // namespace

std::unique_ptr<DocumentSource> open_debian_source(const SourceOptions& options,
                                                   const std::string& work_folder,
                                                   const ProgressFunction& progress) {
  check_language(options.target_language);  // which must be there
  if (options.source_language == options.target_language)
    throw error(ErrorKind::usage, "cannot translate {} into itself: give two languages, such as en-fr",
                options.target_language);
  std::string lists = options.apt_lists;
  if (lists.empty()) {
    std::vector<std::string> languages = {options.target_language};
    if (!options.source_language.empty()) languages.push_back(options.source_language);
    const bool kept = !options.cache.empty();
    lists = download_apt_lists(kept ? options.cache : work_folder + "/apt", languages, kept, progress);
  }
  return std::make_unique<DebianSource>(options, lists);
}

}  // namespace troupe::data
