// Where documents come from: aligned files, TSV, plain text, Debian's package descriptions, memory. A source
// hands out raw documents in one canonical order, any number of times over, in bounded memory. Belongs to one
// thread.
#pragma once

#include <cstdint>
#include <memory>

#include "data/prepare.hpp"

namespace troupe::data {

class DocumentSource {
 public:
  virtual ~DocumentSource() = default;
  virtual DatasetKind kind() const = 0;
  // False: no more. A pair whose line was left out is a document without paragraphs, which keeps the numbers
  // of those behind it.
  virtual bool next(RawDocument* document) = 0;
  virtual void rewind() = 0;
  virtual uint64_t bytes_read() const = 0;  // since the start or rewind(), for progress
  virtual uint64_t bytes_total() const = 0;
  virtual Counts dropped() const { return {}; }  // lines that were left out since the start or rewind()
  virtual std::string description() const = 0;   // "a.en, a.fr": what an error about the whole corpus names
};

// Opens it; throws Error(file | usage). `work_folder` is where the Debian source may keep what it downloads
// when options.cache is empty. The source refers to `options`, which must outlive it.
std::unique_ptr<DocumentSource> open_source(const SourceOptions& options, const std::string& work_folder,
                                            const ProgressFunction& progress);

// Throws Error(usage) for what is no language code such as "en" or "pt_BR".
void check_language(const std::string& language);

// debian.cpp: descriptions of all packages, paired by Description-md5. Short description first, then the
// paragraphs, unwrapped; list items are paragraphs of their own where both languages have as many.
std::unique_ptr<DocumentSource> open_debian_source(const SourceOptions& options,
                                                   const std::string& work_folder,
                                                   const ProgressFunction& progress);

// apt.cpp: makes apt fetch package lists and translations into `folder` with a configuration of its own, and
// returns the folder with the lists. `progress` is told now and then; what it throws ends apt, too. Throws
// Error(network) that says what to do when there is no apt or no way to the mirror, and where apt's log is if
// the folder is `kept`.
std::string download_apt_lists(const std::string& folder, const std::vector<std::string>& languages,
                               bool kept, const ProgressFunction& progress);

}  // namespace troupe::data
