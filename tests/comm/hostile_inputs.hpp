// What strangers send to the ports of a node: noise, and what a node really sends, recorded and then damaged,
// cut, repeated, or said in another's name. Input `index` is a pure function of the recording and the index.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace troupe::comm::test {

using Dice = std::mt19937_64;
std::string noise(Dice& dice, size_t bytes_max);
std::string clipped(Dice& dice, std::string bytes);  // only the beginning
std::string flipped(Dice& dice, std::string bytes);  // 1 to 8 bits

// For the port of links: what the dialler of a link sends, HTTP/2 from the preface on.
class LinkInputs {
 public:
  LinkInputs();
  // `others`: says hello in the names of other nodes too, which only certificates can tell from the truth.
  std::string make(uint64_t index, bool others) const;
  std::string greeting_without_hello() const;       // up to where the hello would come
  static constexpr const char* kName = "stranger";  // who is recorded

 private:
  std::string frames_at_random(Dice& dice) const;
  std::string with_one_altered(Dice& dice) const;
  std::string shuffled(Dice& dice) const;
  std::string greeting(Dice& dice, bool others) const;

  std::string recording_;
  std::vector<std::string> frames_;  // after the preface
};

// For the port of bulk connections: what the dialler sends, from the hello on.
class BulkInputs {
 public:
  BulkInputs();
  // Of ballots around `ballot`.
  std::string make(uint64_t index, uint64_t ballot) const;
  std::string hello(uint64_t ballot) const;  // a member's, with nothing behind it

 private:
  std::string recording_;
};

}  // namespace troupe::comm::test
