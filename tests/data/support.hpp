// What the tests of data/ share: a small made-up corpus, folders compared byte for byte, errors by kind and
// words.
#pragma once

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "data/files.hpp"
#include "data/prepare.hpp"
#include "kernels/base/error.hpp"
#include "tests/support/process.hpp"

namespace troupe::test {

// `count` different sentence pairs of varying length.
inline std::vector<data::RawDocument> made_up_pairs(int count) {
  static constexpr const char* kWords[][2] = {
      {"red", "rouge"},    {"house", "maison"},    {"small", "petite"}, {"garden", "jardin"},
      {"winter", "hiver"}, {"always", "toujours"}, {"river", "rivière"}};
  std::vector<data::RawDocument> documents;
  for (int i = 0; i < count; ++i) {
    std::string source = "Sentence", target = "Phrase";
    for (int digits = i + 1; digits > 0; digits /= 7) {
      source += std::string(" ") + kWords[digits % 7][0];
      target += std::string(" ") + kWords[digits % 7][1];
    }
    for (int k = 0; k < i % 11; ++k) source += " and more", target += " et encore";
    documents.push_back({i % 3 == 0 ? "thirds" : "", {source + "."}, {target + "."}});
  }
  return documents;
}

inline data::PrepareOptions small_options(const std::string& out, std::vector<data::RawDocument> documents) {
  data::PrepareOptions options;
  options.out = out;
  options.source.kind = data::SourceKind::memory;
  options.source.documents = std::move(documents);
  options.tokenizer.vocabulary = 300;
  options.max_length = 64;
  options.pack_tokens = 128;
  options.valid_samples = options.test_samples = 40;
  options.sync = false;
  return options;
}

// Every file's bytes by name.
inline std::map<std::string, std::string> folder_bytes(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    files[entry.path().filename().string()] =
        entry.is_regular_file() ? data::read_file(entry.path().string()) : std::string("(a folder)");
  return files;
}

// Runs `work`; checks that it throws an Error of the kind whose message has all of the parts.
template <typename Work>
void check_error(ErrorKind kind, const std::vector<std::string>& parts, const Work& work) {
  try {
    work();
    FAIL_CHECK("no error was thrown");
  } catch (const Error& error) {
    CAPTURE(error.what());
    CHECK(to_string(error.kind()) == to_string(kind));
    for (const auto& part : parts) {
      CAPTURE(part);
      CHECK(std::string(error.what()).find(part) != std::string::npos);
    }
  }
}

}  // namespace troupe::test
