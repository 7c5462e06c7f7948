#include "actors/prepare_cluster.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>

#include "actors/cluster_client.hpp"
#include "actors/local_cluster.hpp"
#include "comm/messages.hpp"
#include "kernels/base/error.hpp"

namespace troupe::actors {

namespace {

constexpr size_t kChunksUnderWayMax = 4;  // at one node: about 1 MiB of text each
constexpr std::chrono::minutes kChunkPatience{5};
constexpr std::chrono::milliseconds kAskAgain{100};  // whether to give up

// Which node has which chunks. A chunk is kept until its shard has come back: those of a lost node go to the
// others. Memory is bounded by nodes * kChunksUnderWayMax chunks.
class Dispatch {
 public:
  explicit Dispatch(ClusterClient& cluster) : cluster_(cluster) {
    for (const config::NodeConfig& node : cluster.cluster().listed()) under_way_[node.name];
  }
  // REQUIRES a node, that is, lose() has not thrown.
  bool full() const { return least()->second.size() >= kChunksUnderWayMax; }
  bool idle() const {
    return std::all_of(under_way_.begin(), under_way_.end(),
                       [](const auto& node) { return node.second.empty(); });
  }

  void send(data::RawChunk chunk) {
    wire::Envelope message;
    message.mutable_prepare_chunk()->set_index(chunk.index);
    message.mutable_prepare_chunk()->set_documents(data::encode_chunk(chunk));
    const auto to = least();
    // A link that is down is told as an event too, which brings the chunk back here.
    cluster_.send(to->first, message);
    to->second.push_back(std::move(chunk));
  }

  // False: the node's chunks have gone to others already.
  bool came_back(const std::string& node, uint64_t index) {
    const auto found = under_way_.find(node);
    if (found == under_way_.end()) return false;
    const auto is_it = [index](const data::RawChunk& chunk) { return chunk.index == index; };
    if (std::erase_if(found->second, is_it) == 1) return true;
    throw error(ErrorKind::protocol, "{} sent a shard of chunk {}, which it was not given", node, index);
  }

  void lose(const std::string& node, const std::string& why) {
    const auto found = under_way_.find(node);
    if (found == under_way_.end()) return;
    for (data::RawChunk& chunk : found->second) orphans_.push_back(std::move(chunk));
    fmt::print(stderr, "troupe: lost node {} ({}); others take over its {} chunks\n", node, why,
               found->second.size());
    under_way_.erase(found);
    if (under_way_.empty())
      throw error(ErrorKind::peer_lost, "lost node {}, the last of the loaders: {}", node, why);
  }
  std::optional<data::RawChunk> take_orphan() {
    if (orphans_.empty()) return std::nullopt;
    std::optional<data::RawChunk> chunk(std::move(orphans_.back()));
    orphans_.pop_back();
    return chunk;
  }

 private:
  using Loads = std::map<std::string, std::vector<data::RawChunk>>;
  Loads::iterator least() { return std::min_element(under_way_.begin(), under_way_.end(), by_load); }
  Loads::const_iterator least() const {
    return std::min_element(under_way_.begin(), under_way_.end(), by_load);
  }
  static bool by_load(const Loads::value_type& a, const Loads::value_type& b) {
    return a.second.size() < b.second.size();
  }

  ClusterClient& cluster_;
  Loads under_way_;
  std::vector<data::RawChunk> orphans_;
};

// None when the patience is over.
std::optional<ClusterEvent> next_event(ClusterClient& cluster, const std::function<bool()>& give_up) {
  const auto deadline = std::chrono::steady_clock::now() + kChunkPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    if (give_up && give_up()) throw error(ErrorKind::cancelled, "stopped before the dataset was whole");
    if (auto event = cluster.next(kAskAgain)) return event;
  }
  return std::nullopt;
}

void receive_one(ClusterClient& cluster, Dispatch& dispatch, data::PreparePlan& plan,
                 const std::function<bool()>& give_up) {
  const auto event = next_event(cluster, give_up);
  if (!event)
    throw error(ErrorKind::timeout, "no node has sent a shard for {} minutes", kChunkPatience.count());
  if (event->kind == ClusterEvent::Kind::down) return dispatch.lose(event->node, event->why);
  if (event->kind != ClusterEvent::Kind::message) return;
  if (event->envelope.has_job_ended()) {
    if (event->envelope.has_fence()) return;  // a training job has ended there
    throw error(ErrorKind::protocol, "{}: {}", event->node, event->envelope.job_ended().error());
  }
  if (!event->envelope.has_prepare_shard()) return;
  const wire::PrepareShard& shard = event->envelope.prepare_shard();
  if (!shard.error().empty()) throw error(ErrorKind::protocol, "{}: {}", event->node, shard.error());
  if (dispatch.came_back(event->node, shard.index())) plan.add_shard(shard.index(), shard.shard());
}

// Nodes are told the tokenizer in one message.
void check_size(const data::Tokenizer& tokenizer) {
  const size_t bytes = tokenizer.model_bytes().size();
  if (bytes > wire::kBulkFieldBytesMax)
    throw error(ErrorKind::usage,
                "cannot send a tokenizer of {} bytes to the nodes: a message holds {}; use one with fewer "
                "entries (--vocabulary), or prepare without --nodes and --cluster",
                bytes, wire::kBulkFieldBytesMax);
}

class RemovedFolder {
 public:
  RemovedFolder()
      : path_(std::filesystem::temp_directory_path() / ("troupe-prepare-" + std::to_string(getpid()))) {}
  ~RemovedFolder() {
    std::error_code ignored;  // a leftover log folder harms nobody
    std::filesystem::remove_all(path_, ignored);
  }
  std::string text() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace

data::PrepareReport prepare_on_cluster(data::PrepareOptions options, ClusterClient& cluster, int threads,
                                       const data::ProgressFunction& progress,
                                       const std::function<bool()>& give_up) {
  const bool trains = options.tokenizer_file.empty();
  data::PreparePlan plan(std::move(options), progress);
  if (!trains) check_size(plan.tokenizer());
  plan.scan(threads);
  if (trains) check_size(plan.tokenizer());
  wire::Envelope start;
  start.mutable_prepare_start()->set_work(data::encode_work(plan.work()));
  start.mutable_prepare_start()->set_tokenizer(plan.tokenizer().model_bytes());
  cluster.send_all(start);
  Dispatch dispatch(cluster);
  const auto next_chunk = [&] {
    auto orphan = dispatch.take_orphan();
    return orphan ? std::move(orphan) : plan.next_chunk();
  };
  while (true) {
    while (!dispatch.full()) {
      auto chunk = next_chunk();
      if (!chunk) break;
      dispatch.send(std::move(*chunk));
    }
    if (dispatch.idle()) break;
    receive_one(cluster, dispatch, plan, give_up);
  }
  return plan.finish();
}

data::PrepareReport prepare_on_local_nodes(data::PrepareOptions options, int64_t nodes, int64_t threads,
                                           const std::string& program, const data::ProgressFunction& progress,
                                           const std::function<bool()>& give_up) {
  const RemovedFolder folder;
  LocalCluster local(config::local_cluster(nodes, threads), folder.text(), program);
  local.start(give_up);
  try {
    ClusterClient client(local.config());
    client.wait_for_links(std::chrono::seconds(10), 0, give_up);
    const data::PrepareReport report =
        prepare_on_cluster(std::move(options), client, int(nodes * threads), progress, give_up);
    client.close();
    local.stop(std::chrono::seconds(5));
    return report;
  } catch (...) {
    local.stop(std::chrono::milliseconds(700));
    throw;
  }
}

}  // namespace troupe::actors
