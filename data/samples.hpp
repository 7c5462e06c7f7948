// From raw documents to samples: cleaning, cutting and filtering, the same in the first pass (scan) and in
// the second (tokenise). Pure but for the sentence rules it keeps; belongs to one thread.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "data/clean.hpp"
#include "data/prepare.hpp"

namespace troupe::data {

struct TextPart {
  uint64_t id = 0;          // (document << 16) | part
  uint64_t split_hash = 0;  // group hash of the whole source paragraph: decides the split of all its parts
  std::string_view source;  // empty in a dataset of kind text
  std::string_view target;
};

class SampleCutter {
 public:
  explicit SampleCutter(const TokeniseWork& work);
  // Calls `use` for every sample of a document, in order; what is left out is counted in `dropped`.
  void cut(const RawDocument& document, uint64_t number, Counts* dropped,
           const std::function<void(const TextPart&)>& use);

 private:
  const char* reason_to_drop(std::string_view source, std::string_view target) const;

  const TokeniseWork& work_;
  std::optional<SentenceSplitter> source_sentences_, target_sentences_;
};

}  // namespace troupe::data
