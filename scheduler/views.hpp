// The words of the protocol as plain values: ranks, ballots, slot sets, views. Standard library only, no I/O,
// no clock: the same code decides in production and in a simulation. All types are values; nothing here is
// shared.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace troupe::scheduler {

using Rank = uint32_t;  // a node's place in the cluster file
inline constexpr uint32_t kSlotsMax = 1024;

// Who leads and since when. A member that answered a ballot ignores every lower one.
struct Ballot {
  uint64_t number = 0;
  Rank leader = 0;
  auto operator<=>(const Ballot&) const = default;
};

// A set of slots (micro-batches) of one step.
class SlotSet {
 public:
  SlotSet() = default;
  static SlotSet first(uint32_t count);                    // {0 .. count-1}
  static SlotSet from_words(std::vector<uint64_t> words);  // as on the wire; trailing zeros dropped

  void insert(uint32_t slot);  // REQUIRES slot < kSlotsMax
  void erase(uint32_t slot);
  bool contains(uint32_t slot) const;
  bool empty() const { return words_.empty(); }
  uint32_t count() const;
  std::optional<uint32_t> lowest() const;
  std::vector<uint32_t> to_vector() const;
  const std::vector<uint64_t>& words() const { return words_; }

  bool disjoint(const SlotSet& other) const;
  SlotSet operator|(const SlotSet& other) const;
  SlotSet operator-(const SlotSet& other) const;
  bool operator==(const SlotSet&) const = default;

 private:
  std::vector<uint64_t> words_;  // no trailing zero word
};

struct Member {
  Rank rank = 0;
  std::string name;
  std::string bulk_address;
  std::string incarnation;  // 16 random bytes
  std::string host_id;
  std::string address = {};  // of its links
  bool operator==(const Member&) const = default;
};

// What a leader and its members agree on until the next ballot: who they are, in ring order, and which sums
// stay.
struct View {
  Ballot ballot;
  int64_t step = 0;  // that is computed first
  std::vector<Member> members;
  std::map<Rank, SlotSet> kept;      // disjoint; sums not named here are zeroed
  std::optional<Rank> total_source;  // a holder of R(step - 1), for members that lack it
  std::string bulk_key;              // 32 random bytes
  std::optional<int64_t> end_step;   // where a stop that was asked for ends the job

  std::optional<size_t> position(Rank rank) const;
  bool operator==(const View&) const = default;
};

}  // namespace troupe::scheduler
