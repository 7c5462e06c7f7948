// What a ring does to the numbers of a chunk; the engine moves the bytes. originate() is called by the
// sending thread, the others by the receiving one, for disjoint chunks. Bytes from a peer that are not what
// they should be throw Error(corrupt).
#pragma once

#include <memory>

#include "comm/ring.hpp"

namespace troupe::comm {

class RingWork {
 public:
  virtual ~RingWork() = default;
  virtual int64_t elements(Bucket chunk) const = 0;
  // Writes our own values.
  virtual void originate(Bucket chunk, FrameBuffer& out) = 0;
  // Writes the partial sum that came in, with our own values added.
  virtual void combine(Bucket chunk, std::span<const std::byte> in, FrameBuffer& out) = 0;
  // The same, but the sum is whole: keeps the total and writes it as it goes round.
  virtual void complete(Bucket chunk, std::span<const std::byte> in, FrameBuffer& out) = 0;
  // Keeps a total that another member completed.
  virtual void store(Bucket chunk, std::span<const std::byte> in) = 0;
  // A ring of one: our own values are the total.
  virtual void complete_alone(Bucket chunk) = 0;
};

std::unique_ptr<RingWork> make_exact_work(const ExactReduction& reduction);
std::unique_ptr<RingWork> make_float_work(const FloatReduction& reduction);

}  // namespace troupe::comm
