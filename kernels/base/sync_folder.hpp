// Makes the renames in a folder survive a loss of power.
#pragma once

#include <string>

namespace troupe {

// A file system that cannot sync folders is let be. Throws Error(file). Any thread.
void sync_folder(const std::string& path);

}  // namespace troupe
