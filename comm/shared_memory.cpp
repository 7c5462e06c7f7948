#include "comm/shared_memory.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fstream>
#include <utility>

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "comm/handshake_exchange.hpp"
#include "comm/shm_channel.hpp"

namespace troupe::comm {
namespace {

constexpr uint64_t kRingBytes = uint64_t{1} << 20;  // each way; a power of two
constexpr size_t kPlaces = 32;                      // each way; memory is taken as they are used
constexpr size_t kPieceBytes = size_t{64} << 10;    // copied before the other side hears of it
constexpr int64_t kLifeCheckMs = 20;                // how often a wait looks whether the peer's process lives

// One side's bell: rung (counted up) whenever something changes for it.
struct Bell {
  alignas(64) std::atomic<uint32_t> rung;
  std::atomic<uint32_t> waiting;
  std::atomic<uint32_t> closed;  // this side has closed
};
struct Way {
  alignas(64) std::atomic<uint64_t> written;
  alignas(64) std::atomic<uint64_t> taken;
};
static_assert(std::atomic<uint64_t>::is_always_lock_free && std::atomic<uint32_t>::is_always_lock_free);

void futex_wait(std::atomic<uint32_t>& word, uint32_t seen, int64_t ms) {
  const timespec timeout{ms / 1000, (ms % 1000) * 1'000'000};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, seen, &timeout, nullptr, 0);
}
void ring(Bell& bell) {
  bell.rung.fetch_add(1);
  if (bell.waiting.load() > 0)
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&bell.rung), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

// Index 0 is the maker's, 1 the opener's: bells by who waits, ways, bytes and places by who writes.
struct ShmRegion::Layout {
  std::array<uint8_t, 32> nonce;
  std::array<uint8_t, 32> confirmation;
  Bell bells[2];
  Way ways[2];
  alignas(4096) std::byte bytes[2][kRingBytes];
  alignas(4096) std::byte places[2][kPlaces * kPlaceBytes];
};

std::string host_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  char space[128];
  const ssize_t bytes = readlink("/proc/self/ns/pid", space, sizeof space);
  if (!std::getline(file, boot) || bytes <= 0) return {};
  return fmt::format("{} {} {}", boot.substr(0, 64), std::string_view(space, size_t(bytes)).substr(0, 48),
                     geteuid());
}

std::string why_no_shared_memory() {
  std::string why;
  ShmRegion::create(why);
  return why;
}

ShmRegion::ShmRegion(ShmRegion&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), layout_(std::exchange(other.layout_, nullptr)) {}

ShmRegion::~ShmRegion() {
  if (layout_ != nullptr) munmap(layout_, sizeof(Layout));
  if (fd_ >= 0) close(fd_);
}

std::unique_ptr<ShmRegion> ShmRegion::create(std::string& why) {
  std::unique_ptr<ShmRegion> region(new ShmRegion);
  region->fd_ = memfd_create("troupe-bulk", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  // Sealed: nobody can shrink it under the other's feet.
  void* memory = MAP_FAILED;
  if (region->fd_ >= 0 && ftruncate(region->fd_, sizeof(Layout)) == 0 &&
      fcntl(region->fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
    memory = mmap(nullptr, sizeof(Layout), PROT_READ | PROT_WRITE, MAP_SHARED, region->fd_, 0);
  if (memory == MAP_FAILED) {
    why = fmt::format("{} bytes of shared memory: {}", sizeof(Layout), std::strerror(errno));
    return nullptr;
  }
  region->layout_ = static_cast<Layout*>(memory);
  region->layout_->nonce = random_bytes();
  return region;
}

std::unique_ptr<ShmRegion> ShmRegion::open(const ShmOffer& offer, std::string& why) {
  const std::string path = fmt::format("/proc/{}/fd/{}", offer.process, offer.descriptor);
  std::unique_ptr<ShmRegion> region(new ShmRegion);
  struct stat status {};
  if (offer.bytes != sizeof(Layout)) {
    why = "it is another version of the program";
    return nullptr;
  }
  region->fd_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (region->fd_ < 0) {
    why = fmt::format("{}: {}", path, std::strerror(errno));
    return nullptr;
  }
  const int seals = fcntl(region->fd_, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(region->fd_, &status) != 0 ||
      uint64_t(status.st_size) != sizeof(Layout)) {
    why = path + " is not the memory that was offered";
    return nullptr;
  }
  void* memory = mmap(nullptr, sizeof(Layout), PROT_READ | PROT_WRITE, MAP_SHARED, region->fd_, 0);
  if (memory == MAP_FAILED) {
    why = fmt::format("cannot map {}: {}", path, std::strerror(errno));
    return nullptr;
  }
  region->layout_ = static_cast<Layout*>(memory);
  if (region->layout_->nonce == offer.nonce) return region;
  why = path + " is not the memory that was offered";
  return nullptr;
}

ShmOffer ShmRegion::offer() const {
  return {uint32_t(getpid()), fd_, sizeof(Layout), layout_->nonce};
}
void ShmRegion::confirm() {
  layout_->confirmation = layout_->nonce;
}
bool ShmRegion::confirmed() const {
  return layout_->confirmation == layout_->nonce;
}

namespace {

class ShmChannel : public ByteChannel {
 public:
  ShmChannel(ShmRegion region, bool maker, std::unique_ptr<ByteChannel> life_line)
      : region_(std::move(region)), life_line_(std::move(life_line)), own_(maker ? 0 : 1) {}
  ~ShmChannel() override {
    own_bell().closed = 1;
    ring(peer_bell());
  }

  Moved read(std::span<std::byte> into) override {
    Moved moved;
    while (moved.bytes < into.size()) {
      const uint64_t there = in_way().written.load(std::memory_order_acquire) - taken_;
      if (there > kRingBytes) return {moved.bytes, true, "its counters in shared memory make no sense"};
      if (there == 0) break;
      const size_t at = taken_ & (kRingBytes - 1);
      const size_t piece =
          std::min({size_t(there), into.size() - moved.bytes, size_t(kRingBytes - at), kPieceBytes});
      std::memcpy(into.data() + moved.bytes, region_.layout().bytes[1 - own_] + at, piece);
      taken_ += piece;
      moved.bytes += piece;
      in_way().taken.store(taken_);
      ring(peer_bell());
    }
    if (moved.bytes == 0 && gone() && in_way().written.load() == taken_)
      return {0, true, "its process ended"};
    return moved;
  }

  Moved write(std::span<const std::byte> from) override {
    Moved moved;
    if (gone()) return {0, true, "its process ended"};
    while (moved.bytes < from.size()) {
      const uint64_t used = written_ - out_way().taken.load(std::memory_order_acquire);
      if (used > kRingBytes) return {moved.bytes, true, "its counters in shared memory make no sense"};
      if (used == kRingBytes) break;
      const size_t at = written_ & (kRingBytes - 1);
      const size_t piece = std::min(
          {size_t(kRingBytes - used), from.size() - moved.bytes, size_t(kRingBytes - at), kPieceBytes});
      std::memcpy(region_.layout().bytes[own_] + at, from.data() + moved.bytes, piece);
      written_ += piece;
      moved.bytes += piece;
      out_way().written.store(written_);
      ring(peer_bell());
    }
    return moved;
  }

  void wait(bool readable, bool writable, Deadline deadline) override {
    Bell& bell = own_bell();
    while (!interrupted_ && !gone() && Clock::now() < deadline) {
      bell.waiting.fetch_add(1);
      const uint32_t seen = bell.rung.load();
      const bool can_read = readable && in_way().written.load() != in_way().taken.load();
      const bool can_write = writable && out_way().written.load() - out_way().taken.load() < kRingBytes;
      if (!can_read && !can_write && !interrupted_) futex_wait(bell.rung, seen, wait_ms(deadline));
      bell.waiting.fetch_sub(1);
      if (can_read || can_write) return;
      look_at_life_line();
    }
  }
  void interrupt() noexcept override {
    interrupted_ = true;
    ring(own_bell());
  }
  SharedPlaces shared_places() const override {
    return {region_.layout().places[own_], region_.layout().places[1 - own_], kPlaces};
  }

 private:
  static int64_t wait_ms(Deadline deadline) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    return std::clamp<int64_t>(left, 0, kLifeCheckMs);
  }
  void look_at_life_line() {
    std::lock_guard lock(life_mutex_);  // several threads may wait
    std::byte nothing;
    if (life_line_->read({&nothing, 1}).closed) dead_ = true;
  }
  bool gone() const { return dead_ || peer_bell().closed.load() != 0; }

  Bell& own_bell() const { return region_.layout().bells[own_]; }
  Bell& peer_bell() const { return region_.layout().bells[1 - own_]; }
  Way& out_way() const { return region_.layout().ways[own_]; }
  Way& in_way() const { return region_.layout().ways[1 - own_]; }

  ShmRegion region_;
  std::unique_ptr<ByteChannel> life_line_;
  std::mutex life_mutex_;
  const int own_;
  uint64_t taken_ = 0;  // our truth; what stands in the memory is for the peer
  uint64_t written_ = 0;
  std::atomic<bool> dead_ = false;
  std::atomic<bool> interrupted_ = false;
};

}  // namespace

std::unique_ptr<ByteChannel> make_shm_channel(ShmRegion region, bool maker,
                                              std::unique_ptr<ByteChannel> life_line) {
  return std::make_unique<ShmChannel>(std::move(region), maker, std::move(life_line));
}

}  // namespace troupe::comm
