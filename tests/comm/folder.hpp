// A temporary folder that is removed with all it holds, and the files of one node in a folder of
// certificates.
#pragma once

#include <filesystem>
#include <string>

#include <doctest/doctest.h>
#include <stdlib.h>

#include "comm/security.hpp"

namespace troupe::comm::test {

struct Folder {
  Folder() : path((std::filesystem::temp_directory_path() / "troupe-test-XXXXXX").string()) {
    REQUIRE(mkdtemp(path.data()) != nullptr);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return path + "/" + name; }

  std::string path;
};

inline Security files_of(const std::string& folder, const std::string& node) {
  return {folder + "/ca.pem", folder + "/" + node + ".pem", folder + "/" + node + ".key", false};
}

}  // namespace troupe::comm::test
