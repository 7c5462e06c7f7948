#include "scheduler/formation.hpp"

#include <algorithm>
#include <sstream>

namespace troupe::scheduler {

namespace {

// The first line of each that the other does not have: what the two nodes disagree about.
std::string first_difference(const std::string& ours, const std::string& theirs) {
  std::istringstream left(ours), right(theirs);
  std::string a, b;
  while (true) {
    const bool more_a = bool(std::getline(left, a)), more_b = bool(std::getline(right, b));
    if (!more_a && !more_b) return "its fingerprint";
    if (more_a == more_b && a == b) continue;
    std::string text = "\"";
    text.append(more_b ? b : "").append("\" instead of \"").append(more_a ? a : "").append("\"");
    return text;
  }
}

}  // namespace

Failure lost_node(const std::string& name, const std::string& why) {
  return {Failure::Kind::peer_lost, "lost node " + name + ": " + why};
}

Formation::Formation(Options options, Microseconds now_us)
    : options_(std::move(options)), began_at_us_(now_us) {}

std::optional<FormationAction> Formation::on_join(const JoinRequest& join) {
  if (formed_) return std::nullopt;
  const Rank rank = join.member.rank;
  const auto expected =
      std::find_if(options_.expected.begin(), options_.expected.end(),
                   [&](const auto& node) { return node.first == rank && node.second == join.member.name; });
  if (expected == options_.expected.end())
    return Failure{Failure::Kind::protocol,
                   join.member.name + " (rank " + std::to_string(rank) +
                       ") wants to join, but the cluster file does not name it there"};
  joined_[rank] = join;
  if (auto failure = compare()) return *failure;
  if (joined_.size() < options_.expected.size()) return std::nullopt;
  return form();
}

std::optional<FormationAction> Formation::on_tick(Microseconds now_us) {
  if (formed_ || now_us - began_at_us_ < options_.patience_us) return std::nullopt;
  std::string names;
  for (const std::string& node : missing()) names += (names.empty() ? "" : ", ") + node;
  return Failure{Failure::Kind::timeout, "waited " + std::to_string(options_.patience_us / 1'000'000) +
                                             " s for every node to join; missing: " + names};
}

std::vector<std::string> Formation::missing() const {
  std::vector<std::string> names;
  for (const auto& [rank, node] : options_.expected)
    if (!joined_.contains(rank)) names.push_back(node);
  return names;
}

std::optional<Failure> Formation::compare() const {
  const auto leader = joined_.find(options_.leader);
  if (leader == joined_.end()) return std::nullopt;
  for (const auto& [rank, other] : joined_) {
    if (rank == options_.leader || other.fingerprint == leader->second.fingerprint) continue;
    return Failure{Failure::Kind::version,
                   "node " + name(rank) + " differs from " + name(options_.leader) + ": it has " +
                       first_difference(leader->second.fingerprint_text, other.fingerprint_text)};
  }
  return std::nullopt;
}

ViewFormed Formation::form() {
  formed_ = true;
  const JoinRequest& leader = joined_.at(options_.leader);
  ViewFormed formed;
  formed.view.step = leader.step;
  formed.view.ballot = {options_.ballot_number, options_.leader};
  formed.view.bulk_key = options_.bulk_key;
  for (const auto& [rank, node] : options_.expected) {
    const JoinRequest& join = joined_.at(rank);
    formed.view.members.push_back(join.member);
    if (join.step != leader.step || join.digest != leader.digest) formed.lacking.push_back(rank);
  }
  return formed;
}

std::string Formation::name(Rank rank) const {
  for (const auto& [number, node] : options_.expected)
    if (number == rank) return node;
  return "rank " + std::to_string(rank);
}

}  // namespace troupe::scheduler
