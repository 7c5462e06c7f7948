#include "actors/roles/step_total.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <sstream>

#include <cereal/archives/portable_binary.hpp>
#include <cereal/types/array.hpp>
#include <cereal/types/map.hpp>

#include "kernels/base/error.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::actors {

namespace {

constexpr size_t kHeadBytesMax = size_t{2} << 20;  // of 1,024 members with 1,024 slots each, and room

// A slot a bit, in as many words whatever they say: no number of a peer's decides how much memory is taken.
using SlotWords = std::array<uint64_t, scheduler::kSlotsMax / 64>;

struct Head {
  uint64_t ballot_number = 0;
  uint32_t leader = 0;
  int64_t step = 0;
  std::map<uint32_t, SlotWords> contributions;
  int64_t end_step = -1;
  std::array<int64_t, 8> sum{};
  uint32_t flags = 0;
  uint64_t elements = 0, blocks = 0;

  template <class Archive>
  void serialize(Archive& archive) {
    archive(ballot_number, leader, step, contributions, end_step, sum, flags, elements, blocks);
  }
};

Head head_of(const scheduler::Seal& seal, const comm::SumMeta& sum, const kernels::RoundedTotal& total) {
  Head head;
  head.ballot_number = seal.fence.ballot.number;
  head.leader = seal.fence.ballot.leader;
  head.step = seal.fence.step;
  for (const auto& [rank, slots] : seal.contributions)
    std::copy(slots.words().begin(), slots.words().end(), head.contributions[rank].begin());
  head.end_step = seal.end_step.value_or(-1);
  head.sum = {sum.target_tokens, sum.correct, sum.loss,    sum.nll,
              sum.samples,       sum.more[0], sum.more[1], sum.more[2]};
  head.flags = sum.flags;
  head.elements = total.mantissa.size();
  head.blocks = total.shift.size();
  return head;
}

StepTotal total_of(const Head& head) {
  StepTotal total;
  total.seal.fence = {{head.ballot_number, head.leader}, head.step};
  for (const auto& [rank, words] : head.contributions)
    total.seal.contributions[rank] = scheduler::SlotSet::from_words({words.begin(), words.end()});
  if (head.end_step >= 0) total.seal.end_step = head.end_step;
  total.sum = {head.sum[0], head.sum[1], head.sum[2],
               head.sum[3], head.sum[4], {head.sum[5], head.sum[6], head.sum[7]},
               head.flags};
  return total;
}

// Reads and writes one value after the other in a span of bytes.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> take(uint64_t count, size_t unit = 1) {
    if (count > bytes_.size() / unit)
      throw error(ErrorKind::corrupt, "a total that came from a peer ends too early");
    const auto taken = bytes_.first(size_t(count) * unit);
    bytes_ = bytes_.subspan(taken.size());
    return taken;
  }
  uint64_t take_number() {
    uint64_t number = 0;
    std::memcpy(&number, take(sizeof number).data(), sizeof number);
    return number;
  }
  std::span<const std::byte> rest() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

void put(std::vector<std::byte>& out, const void* data, size_t bytes) {
  const auto* first = static_cast<const std::byte*>(data);
  out.insert(out.end(), first, first + bytes);
}

}  // namespace

std::vector<std::byte> to_bytes(const scheduler::Seal& seal, const comm::SumMeta& sum,
                                const kernels::RoundedTotal& total) {
  std::ostringstream stream;
  {
    cereal::PortableBinaryOutputArchive archive(stream);
    archive(head_of(seal, sum, total));
  }
  const std::string head = stream.str();
  const uint64_t head_bytes = head.size();
  const auto& [mantissa, shift] = total;
  std::vector<std::byte> out(sizeof(uint64_t));
  out.reserve(2 * sizeof(uint64_t) + head.size() + mantissa.size() * sizeof(int32_t) + shift.size());
  put(out, &head_bytes, sizeof head_bytes);
  put(out, head.data(), head.size());
  put(out, mantissa.data(), mantissa.size() * sizeof(int32_t));
  put(out, shift.data(), shift.size());
  const uint64_t checksum = checksum64(out.data() + sizeof checksum, out.size() - sizeof checksum);
  std::memcpy(out.data(), &checksum, sizeof checksum);
  return out;
}

StepTotal step_total_of(std::span<const std::byte> bytes) {
  Cursor cursor(bytes);
  const uint64_t checksum = cursor.take_number();
  if (checksum != checksum64(cursor.rest().data(), cursor.rest().size()))
    throw error(ErrorKind::corrupt, "a total that came from a peer has the wrong checksum");
  const auto head_bytes = cursor.take(cursor.take_number());
  Head head;
  try {
    std::istringstream stream(
        std::string(reinterpret_cast<const char*>(head_bytes.data()), head_bytes.size()));
    cereal::PortableBinaryInputArchive archive(stream);
    archive(head);
  } catch (const cereal::Exception& problem) {
    throw error(ErrorKind::corrupt, "a total that came from a peer has no head: {}", problem.what());
  }
  StepTotal total = total_of(head);
  const auto mantissa = cursor.take(head.elements, sizeof(int32_t));
  const auto shift = cursor.take(head.blocks);
  total.total.mantissa.resize(size_t(head.elements));
  std::memcpy(total.total.mantissa.data(), mantissa.data(), mantissa.size());
  total.total.shift.resize(size_t(head.blocks));
  std::memcpy(total.total.shift.data(), shift.data(), shift.size());
  return total;
}

size_t step_total_bytes_max(const kernels::BlockLayout& layout) {
  return kHeadBytesMax + size_t(layout.elements()) * sizeof(int32_t) + size_t(layout.blocks());
}

}  // namespace troupe::actors
