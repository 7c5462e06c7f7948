#include "kernels/base/sync_folder.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "kernels/base/error.hpp"

namespace troupe {

void sync_folder(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw error(ErrorKind::file, "cannot open folder {}: {}", path, std::strerror(errno));
  const int result = ::fsync(descriptor);
  const int reason = errno;
  ::close(descriptor);
  if (result != 0 && reason != EINVAL)
    throw error(ErrorKind::file, "cannot sync folder {}: {}", path, std::strerror(reason));
}

}  // namespace troupe
