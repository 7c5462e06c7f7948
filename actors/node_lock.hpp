// A lock (flock) of one node on one --out, held while it has a job there: two processes of one name would
// write over each other's checkpoints and ledger. It goes with the process, however that ends, and so covers
// nodes that outlive their client. Nodes of other names may share the folder. Its file, OUT/ledger/NODE.lock,
// is empty and stays: one that is removed could be locked by two.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

#include <fcntl.h>

#include "comm/socket.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/file_lock.hpp"

namespace troupe::actors {

inline std::filesystem::path node_lock_path(const std::filesystem::path& out, const std::string& node) {
  return out / "ledger" / (node + ".lock");
}

// Of nodes that keep a lock there, one; nullopt: none does. Leaves nothing behind.
inline std::optional<std::string> find_locking_node(const std::filesystem::path& out) {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(out / "ledger", none)) {
    if (entry.path().extension() != ".lock") continue;
    // For writing as well, which is what network file systems ask of who wants a lock.
    const comm::Descriptor file(::open(entry.path().c_str(), O_RDWR | O_CLOEXEC));
    if (file.valid() && !try_lock(file.get(), LOCK_SH)) return entry.path().stem().string();
  }
  return std::nullopt;
}

class NodeLock {
 public:
  // Throws Error(usage) when another process has it. Where no file can be made for it (a folder that may only
  // be read, a full disk) the job goes on without: that is no reason to refuse it.
  NodeLock(const std::filesystem::path& out, const std::string& node) {
    const std::filesystem::path path = node_lock_path(out, node);
    std::error_code none;
    std::filesystem::create_directories(path.parent_path(), none);
    file_ = comm::Descriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (file_.valid() && !try_lock(file_.get(), LOCK_EX))
      throw error(
          ErrorKind::usage,
          "another troupe is at work in {}: it has a node {} there; wait for its end, or choose another "
          "--out",
          out.string(), node);
  }

 private:
  comm::Descriptor file_;
};

}  // namespace troupe::actors
