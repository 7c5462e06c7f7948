// A dataset folder that is not whole, made whole with files from elsewhere. Every function throws Error(file)
// with the path and the reason when the file system does not do what it should. Not thread-safe for one
// folder.
#pragma once

#include <string>
#include <vector>

#include "data/files.hpp"

namespace troupe::data {

// The files that are missing or not what the manifest says; when there is no whole manifest, that alone,
// without size and hash. Reads every file.
std::vector<FileEntry> lacking_files(const std::string& folder);

// The names of the files that a whole folder has, the manifest's among them. Throws what Dataset::open() does
// for a manifest that cannot be read.
std::vector<std::string> file_names(const std::string& folder);

// Moves the file at `from`, on the same file system, into its place, synced. False when it is not what
// `entry` says.
bool adopt_file(const std::string& folder, const FileEntry& entry, const std::string& from);

}  // namespace troupe::data
