#include "actors/drill/process_faults.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kernels/base/error.hpp"

namespace troupe::drill {

namespace {

struct Region {
  std::string what;
  uint64_t address = 0, bytes = 0;
};

std::vector<Region> read_map(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::vector<Region> regions;
  for (Region region; in >> region.what >> region.address >> region.bytes;)
    if (region.bytes > 0) regions.push_back(region);
  if (regions.empty())
    throw error(ErrorKind::file, "{} says nothing of a node's memory, in which a bit was to be flipped",
                path.string());
  return regions;
}

}  // namespace

void send_signal(pid_t process, int signal) {
  if (kill(process, signal) != 0)
    throw error(ErrorKind::peer_lost, "cannot send signal {} to process {}: {}", signal, process,
                std::strerror(errno));
}

void fill_disk(pid_t process, bool full) {
  rlimit limit{};
  if (prlimit(process, RLIMIT_FSIZE, nullptr, &limit) == 0) {
    limit.rlim_cur = full ? 0 : limit.rlim_max;
    if (prlimit(process, RLIMIT_FSIZE, &limit, nullptr) == 0) return;
  }
  throw error(ErrorKind::file, "cannot limit the files of process {}: {}", process, std::strerror(errno));
}

std::string flip_bit(pid_t process, const std::filesystem::path& map, std::mt19937_64& random) {
  const std::vector<Region> regions = read_map(map);
  const Region& region = regions[size_t(random() % regions.size())];
  const uint64_t at = region.address + random() % region.bytes;
  const unsigned bit = unsigned(random() % 8);
  const std::string file = fmt::format("/proc/{}/mem", process);
  const int descriptor = open(file.c_str(), O_RDWR | O_CLOEXEC);
  unsigned char byte = 0;
  bool done = descriptor >= 0 && pread(descriptor, &byte, 1, off_t(at)) == 1;
  byte = static_cast<unsigned char>(byte ^ (1u << bit));
  done = done && pwrite(descriptor, &byte, 1, off_t(at)) == 1;
  const int why = errno;
  if (descriptor >= 0) close(descriptor);
  if (!done) throw error(ErrorKind::file, "cannot change {}: {}", file, std::strerror(why));
  return fmt::format("bit {} of byte {} of its {}", bit, at - region.address, region.what);
}

}  // namespace troupe::drill
