#include "tests/scheduler/simulation/simulation.hpp"

namespace troupe::simulation {

namespace {

std::pair<Rank, Rank> pair_of(Rank a, Rank b) {
  return {std::min(a, b), std::max(a, b)};
}

}  // namespace

void Simulation::broken(const std::string& what) const {
  throw Broken("at " + std::to_string(now_) + " us, event " + std::to_string(handled_) + ": " + what);
}

Microseconds Simulation::random_us(Microseconds low, Microseconds high) {
  return low + Microseconds(random_() % uint64_t(high - low + 1));
}

bool Simulation::chance(uint32_t one_in) {
  return random_() % one_in == 0;
}

void Simulation::at(Microseconds when, std::function<void()> event) {
  events_.emplace(std::pair(std::max(when, now_), ++sequence_), std::move(event));
}

void Simulation::on_node(Rank rank, Microseconds when, Run event) {
  at(when, [this, rank, incarnation = nodes_[rank].incarnation, event = std::move(event)]() mutable {
    Node& node = nodes_[rank];
    if (!node.alive || node.incarnation != incarnation) return;
    if (node.stopped_until > now_) return on_node(rank, node.stopped_until, std::move(event));
    event(node);
  });
}

bool Simulation::reachable(Rank a, Rank b) const {
  const auto cut = cuts_.find(pair_of(a, b));
  return nodes_[a].alive && nodes_[b].alive && (cut == cuts_.end() || cut->second == 0);
}

// Control messages: late, lost, copied, out of order.
void Simulation::deliver(Rank from, Rank to, Run event) {
  if (from == to) return on_node(to, now_, std::move(event));
  if (!links_.contains(pair_of(from, to)) || !reachable(from, to)) return;
  const uint32_t one_in = now_ < burst_until_ ? 3 : 50;
  if (chance(one_in)) return;
  const auto late = [&] { return random_us(50, now_ < burst_until_ || chance(20) ? 30'000 : 500); };
  if (chance(one_in)) on_node(to, now_ + late(), event);
  on_node(to, now_ + late(), std::move(event));
}

void Simulation::say(Rank from, Rank to, const LinkWord& word, Run event) {
  if (observer_ && from != to) observer_(from, to, word);
  deliver(from, to, std::move(event));
}

// Bulk connections: in order and whole, however long the network is away, until one end is gone.
void Simulation::deliver_bulk(Rank from, Rank to, Run event) {
  auto& queue = bulk_[{from, to}];
  queue.push_back({nodes_[from].incarnation, nodes_[to].incarnation, std::move(event)});
  if (queue.size() == 1)
    at(now_ + random_us(20, scenario_.chunk_us), [this, from, to] { carry_bulk(from, to); });
}

void Simulation::carry_bulk(Rank from, Rank to) {
  auto& queue = bulk_[{from, to}];
  Parcel& parcel = queue.front();
  const bool both = nodes_[from].alive && nodes_[from].incarnation == parcel.from_incarnation &&
                    nodes_[to].alive && nodes_[to].incarnation == parcel.to_incarnation;
  if (both && !reachable(from, to)) return at(now_ + 5'000, [this, from, to] { carry_bulk(from, to); });
  if (both) on_node(to, now_, std::move(parcel.event));
  queue.pop_front();
  if (!queue.empty())
    at(now_ + random_us(20, scenario_.chunk_us), [this, from, to] { carry_bulk(from, to); });
}

void Simulation::check_links(Rank a, Microseconds notice_us) {
  for (Rank b = 0; b < nodes_.size(); ++b)
    if (b != a) check_link(a, b, notice_us);
}

// The link follows what is possible, after the time that it takes to notice.
void Simulation::check_link(Rank a, Rank b, Microseconds notice_us) {
  const auto possible = [this, a, b] {
    return reachable(a, b) && nodes_[a].stopped_until <= now_ && nodes_[b].stopped_until <= now_;
  };
  const bool up = possible();
  if (up == links_.contains(pair_of(a, b))) return;
  at(now_ + (up ? random_us(5'000, 100'000) : notice_us), [this, a, b, up, possible] {
    if (up == possible()) set_link(a, b, up);
  });
}

void Simulation::set_link(Rank a, Rank b, bool up) {
  if (up == links_.contains(pair_of(a, b))) return;
  if (up)
    links_.insert(pair_of(a, b));
  else
    links_.erase(pair_of(a, b));
  for (const auto& [self, peer] : {std::pair(a, b), std::pair(b, a)}) {
    if (!nodes_[self].alive) continue;
    // A link is told to be up before anything comes over it.
    on_node(self, up ? now_ : now_ + random_us(0, 1'000), [this, peer = peer, up](Node& node) {
      if (up) return apply(node, node.membership->on_peer_up(peer, now_));
      ring_broken(node, peer);
      apply(node, node.membership->on_peer_down(peer, now_));
      require(!node.membership->leads() || !node.membership->view()->position(peer),
              "a leader goes on with a view that names a node it has lost");
    });
  }
}

std::string Simulation::all_nodes() const {
  std::string text;
  for (const Node& node : nodes_) {
    text += "\n    node " + std::to_string(node.rank) + ": ";
    if (!node.alive) {
      text += "gone";
      continue;
    }
    const Ballot& promised = node.membership->promised();
    text += part_of(node) + ", step " + std::to_string(node.state.step) + ", ballot " +
            std::to_string(promised.number) + " of node " + std::to_string(promised.leader) +
            (node.leaving ? ", leaving" : "");
  }
  return text;
}

void Simulation::run() {
  const uint64_t events_max = 3'000'000 + 100 * nodes_.size() * nodes_.size();
  for (Rank rank = 0; rank < nodes_.size(); ++rank) start_process(rank);
  while (!ended_) {
    while (next_fault_ < scenario_.faults.size() &&
           (scenario_.faults[next_fault_].at_event <= handled_ || events_.empty()))
      inject(scenario_.faults[next_fault_++]);
    require(!events_.empty(), "nothing is left to happen, but the job has not ended");
    auto event = events_.extract(events_.begin());
    now_ = event.key().first;
    ++handled_;
    if (faults_active_ > 0) calm_since_ = now_;
    if (now_ - calm_since_ >= 120'000'000)
      broken("two minutes without a fault, and the job has not ended" + all_nodes());
    if (handled_ >= events_max) broken("too many events, and the job has not ended" + all_nodes());
    event.mapped()();
  }
  require(!scenario_.faults.empty() || views_.size() == 1, "views changed without a reason");
}

}  // namespace troupe::simulation
