#include <algorithm>
#include <cstring>

#include "comm/ring_engine.hpp"

namespace troupe::comm {
namespace {
constexpr size_t kStateChunkBytes = size_t{256} << 10;
}

void RingEngine::broadcast(size_t root, std::vector<std::byte>& bytes, size_t bytes_max, Deadline deadline) {
  TROUPE_CHECK(root < size(), "root {} of {}", root, size());
  {
    std::lock_guard lock(mutex_);
    throw_if_failed();
    TROUPE_CHECK(idle() && !here_, "a reduction is under way");
    if (size() == 1) return;
    at_work_here_ = true;
  }
  bool succeeded = false;
  guarded([&] {
    if (root == position_)
      send_state(bytes, deadline);
    else
      receive_state(root, bytes, bytes_max, deadline);
    succeeded = true;
  });
  std::lock_guard lock(mutex_);
  at_work_here_ = false;
  if (!succeeded) throw_if_failed();  // a member that left once all was done does no harm
}

void RingEngine::send_state(std::span<const std::byte> bytes, Deadline deadline) {
  const uint64_t size = bytes.size();
  links_.next->send({uint8_t(FrameType::state_size), 0, 0, 0, {}}, std::as_bytes(std::span(&size, 1)),
                    deadline);
  for (size_t at = 0; at < bytes.size(); at += kStateChunkBytes)
    links_.next->send({uint8_t(FrameType::state), 0, 0, uint32_t(at / kStateChunkBytes), {}},
                      bytes.subspan(at, std::min(kStateChunkBytes, bytes.size() - at)), deadline);
  links_.next->flush(deadline);
}

void RingEngine::receive_state(size_t root, std::vector<std::byte>& bytes, size_t bytes_max,
                               Deadline deadline) {
  const bool last = (position_ + 1) % size() == root;
  const auto next_frame = [&](FrameType type, uint32_t chunk) {
    Frame frame = links_.previous->receive(deadline);
    if (frame.head.type != uint8_t(type) || frame.head.chunk != chunk)
      throw protocol_error(
          fmt::format("frame {} of type {} in a broadcast", frame.head.chunk, frame.head.type));
    if (!last) links_.next->send(frame.head, frame.payload, deadline);
    return frame.payload;
  };
  const auto head = next_frame(FrameType::state_size, 0);
  uint64_t size = 0;
  if (head.size() != sizeof size) throw protocol_error("a broadcast without its size");
  std::memcpy(&size, head.data(), sizeof size);
  if (size > bytes_max)
    throw protocol_error(fmt::format("a state of {} bytes; at most {} are expected", size, bytes_max));
  bytes.resize(size);
  for (size_t at = 0; at < size; at += kStateChunkBytes) {
    const auto payload = next_frame(FrameType::state, uint32_t(at / kStateChunkBytes));
    if (payload.size() != std::min<size_t>(kStateChunkBytes, size - at))
      throw protocol_error("a piece of a state that has the wrong size");
    std::memcpy(bytes.data() + at, payload.data(), payload.size());
  }
  try {
    links_.previous->acknowledge(deadline);
  } catch (const PeerError&) {
    // It knows already, and may have closed the ring: all of its bytes are here.
  }
  if (!last) links_.next->flush(deadline);
}

}  // namespace troupe::comm
