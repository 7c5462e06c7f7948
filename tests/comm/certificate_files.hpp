// The files of one node in a folder of certificates.
#pragma once

#include <string>

#include "comm/security.hpp"

namespace troupe::comm::test {

inline Security files_of(const std::string& folder, const std::string& node) {
  return {folder + "/ca.pem", folder + "/" + node + ".pem", folder + "/" + node + ".key", false};
}

}  // namespace troupe::comm::test
