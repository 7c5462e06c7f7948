// What the client of a job knows of its nodes, from their links and from what they say. A plain value.
#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace troupe::actors {

class KnownNodes {
 public:
  explicit KnownNodes(const std::vector<std::string>& linked) : taking_part_(linked.begin(), linked.end()) {}

  bool takes_part(const std::string& node) const { return taking_part_.contains(node); }
  bool any_takes_part() const { return !taking_part_.empty(); }
  bool any_is_lost() const { return !lost_.empty(); }  // whose link may come back
  bool any_in_view() const { return !views_.empty(); }
  bool is_last(const std::string& node) const { return takes_part(node) && taking_part_.size() == 1; }

  // False: it was counted on before.
  bool found(const std::string& node) {
    lost_.erase(node);
    idle_.erase(node);
    return taking_part_.insert(node).second;
  }
  void lost(const std::string& node) { lost_.insert(node); }
  // Its part has ended, or its link. False: nothing was expected of it any more.
  bool gone(const std::string& node) {
    views_.erase(node);
    idle_.erase(node);
    return taking_part_.erase(node) > 0;
  }
  // Linked, it has no part in the job, or none any more, and may be given one yet. False: nothing was
  // expected of it.
  bool idle(const std::string& node) {
    if (!takes_part(node)) return false;
    gone(node);
    idle_.insert(node);
    return true;
  }
  // It has told of a view of `members`. Of one that has refused the order, that is a view of another's job.
  void saw_view(const std::string& node, std::set<std::string> members) {
    if (idle_.contains(node)) found(node);
    if (takes_part(node)) views_[node] = std::move(members);
  }

  // Whether the job goes on though `node` ends it: in other nodes' views, while it was alone in its own or is
  // in none of theirs. Who has told of no view may have no part in the job: it counts for nothing.
  bool others_go_on(const std::string& node) const {
    const auto own = views_.find(node);
    const bool alone = own != views_.end() && own->second == std::set<std::string>{node};
    return std::any_of(views_.begin(), views_.end(), [&](const auto& view) {
      return view.first != node && (alone || !view.second.contains(node));
    });
  }

 private:
  std::set<std::string> taking_part_;  // as far as is known
  std::set<std::string> lost_;
  std::set<std::string> idle_;
  std::map<std::string, std::set<std::string>> views_;  // the newest of each, of nodes that take part
};

}  // namespace troupe::actors
