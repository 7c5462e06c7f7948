// What a ring does to the numbers of a chunk; the engine moves the bytes. originate() is called by the
// sending thread, the others by the receiving one, for disjoint chunks; gather() and add_gathered() by who
// waits for a small reduction. Bytes from a peer that are not what they should be throw Error(corrupt).
#pragma once

#include <memory>

#include "comm/ring.hpp"

namespace troupe::comm {

class RingWork {
 public:
  virtual ~RingWork() = default;
  virtual int64_t elements(Bucket chunk) const = 0;
  // Writes our own values, behind `front` bytes that are left to the caller.
  virtual void originate(Bucket chunk, FrameBuffer& out, size_t front = 0) = 0;
  // Writes the partial sum that came in, with our own values added.
  virtual void combine(Bucket chunk, std::span<const std::byte> in, FrameBuffer& out) = 0;
  // The same, but the sum is whole: keeps the total and writes it as it goes round.
  virtual void complete(Bucket chunk, std::span<const std::byte> in, FrameBuffer& out) = 0;
  // Keeps a total that another member completed.
  virtual void store(Bucket chunk, std::span<const std::byte> in) = 0;
  // A ring of one: our own values are the total.
  virtual void complete_alone(Bucket chunk) = 0;
  // Keeps what the member at `position` originated.
  virtual void gather(Bucket chunk, size_t position, std::span<const std::byte> in) = 0;
  // All others' has been gathered: with our own, at `own_position`, it makes the total.
  virtual void add_gathered(Bucket chunk, size_t own_position) = 0;
};

std::unique_ptr<RingWork> make_exact_work(const ExactReduction& reduction);
std::unique_ptr<RingWork> make_float_work(const FloatReduction& reduction);

}  // namespace troupe::comm
