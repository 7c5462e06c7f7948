// What the tests of scheduler/ share: views of n nodes, and picking one kind of action out of a list.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "scheduler/coordinator.hpp"
#include "scheduler/member.hpp"

namespace troupe::scheduler {

inline View make_view(uint32_t nodes, Rank leader = 0, int64_t step = 0) {
  View view;
  view.step = step;
  view.ballot = {1, leader};
  for (Rank rank = 0; rank < nodes; ++rank)
    view.members.push_back({rank, "node" + std::to_string(rank), "127.0.0.1:1", "incarnation", "host"});
  return view;
}

template <typename T, typename Actions>
std::vector<T> pick(const Actions& actions) {
  std::vector<T> found;
  for (const auto& action : actions)
    if (const T* one = std::get_if<T>(&action)) found.push_back(*one);
  return found;
}

inline SlotSet slots(std::initializer_list<uint32_t> list) {
  SlotSet set;
  for (uint32_t slot : list) set.insert(slot);
  return set;
}

}  // namespace troupe::scheduler
