#include "scheduler/views.hpp"

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "scheduler/protocol.hpp"

namespace troupe::scheduler {

namespace {

constexpr uint32_t kWordBits = 64;

void trim(std::vector<uint64_t>& words) {
  while (!words.empty() && words.back() == 0) words.pop_back();
}

}  // namespace

SlotSet SlotSet::first(uint32_t count) {
  SlotSet set;
  for (uint32_t slot = 0; slot < count; ++slot) set.insert(slot);
  return set;
}

SlotSet SlotSet::from_words(std::vector<uint64_t> words) {
  trim(words);
  if (words.size() > kSlotsMax / kWordBits) throw std::invalid_argument("a slot set has at most 1024 slots");
  SlotSet set;
  set.words_ = std::move(words);
  return set;
}

void SlotSet::insert(uint32_t slot) {
  if (slot >= kSlotsMax) throw std::invalid_argument("slot " + std::to_string(slot) + " is beyond 1023");
  if (words_.size() <= slot / kWordBits) words_.resize(slot / kWordBits + 1);
  words_[slot / kWordBits] |= uint64_t{1} << (slot % kWordBits);
}

void SlotSet::erase(uint32_t slot) {
  if (slot / kWordBits >= words_.size()) return;
  words_[slot / kWordBits] &= ~(uint64_t{1} << (slot % kWordBits));
  trim(words_);
}

bool SlotSet::contains(uint32_t slot) const {
  return slot / kWordBits < words_.size() && (words_[slot / kWordBits] >> (slot % kWordBits) & 1) != 0;
}

uint32_t SlotSet::count() const {
  uint32_t total = 0;
  for (uint64_t word : words_) total += uint32_t(std::popcount(word));
  return total;
}

std::optional<uint32_t> SlotSet::lowest() const {
  for (size_t i = 0; i < words_.size(); ++i)
    if (words_[i] != 0) return uint32_t(i) * kWordBits + uint32_t(std::countr_zero(words_[i]));
  return std::nullopt;
}

std::vector<uint32_t> SlotSet::to_vector() const {
  std::vector<uint32_t> slots;
  for (uint32_t slot = 0; slot < words_.size() * kWordBits; ++slot)
    if (contains(slot)) slots.push_back(slot);
  return slots;
}

bool SlotSet::disjoint(const SlotSet& other) const {
  const size_t common = std::min(words_.size(), other.words_.size());
  for (size_t i = 0; i < common; ++i)
    if ((words_[i] & other.words_[i]) != 0) return false;
  return true;
}

SlotSet SlotSet::operator|(const SlotSet& other) const {
  SlotSet result = *this;
  result.words_.resize(std::max(words_.size(), other.words_.size()));
  for (size_t i = 0; i < other.words_.size(); ++i) result.words_[i] |= other.words_[i];
  return result;
}

SlotSet SlotSet::operator-(const SlotSet& other) const {
  SlotSet result = *this;
  const size_t common = std::min(words_.size(), other.words_.size());
  for (size_t i = 0; i < common; ++i) result.words_[i] &= ~other.words_[i];
  trim(result.words_);
  return result;
}

std::optional<size_t> View::position(Rank rank) const {
  for (size_t i = 0; i < members.size(); ++i)
    if (members[i].rank == rank) return i;
  return std::nullopt;
}

bool SlotPlan::evaluates(int64_t step) const {
  if (evaluate_every <= 0 || evaluation == 0) return false;
  return step % evaluate_every == 0 || step == steps - 1;
}

}  // namespace troupe::scheduler
