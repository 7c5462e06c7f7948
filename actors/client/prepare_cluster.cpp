#include "actors/client/prepare_cluster.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "actors/client/cluster_client.hpp"
#include "actors/client/local_cluster.hpp"
#include "comm/messages.hpp"
#include "kernels/base/error.hpp"
#include "kernels/base/say.hpp"

namespace troupe::actors {

namespace {

constexpr size_t kChunksUnderWayMax = 16;  // at one node: most are of half a MiB, and each keeps a core busy
constexpr size_t kMessageOverheadBytes = 256;  // in a link's queue, beside what a message carries; at most
constexpr size_t kChunkBytesMax = wire::kBulkFieldBytesMax + kMessageOverheadBytes;
constexpr std::chrono::minutes kChunkPatience{5};
constexpr std::chrono::milliseconds kAskAgain{100};  // whether to give up

// Which node has which chunks. A chunk is kept until its shard has come back: those of a lost node go to the
// others. Memory is bounded by nodes * kChunksUnderWayMax chunks.
class Dispatch {
 public:
  // `start_bytes` have gone to each of the nodes and may still be in the queue of its link, which is as large
  // as by default.
  Dispatch(ClusterClient& cluster, const std::vector<std::string>& nodes, size_t start_bytes)
      : cluster_(cluster),
        bytes_max_(comm::LinkOptions().queue_bytes_max - start_bytes - kMessageOverheadBytes) {
    TROUPE_CHECK(bytes_max_ >= kChunkBytesMax, "{} bytes leave no room for a chunk", start_bytes);
    for (const std::string& node : nodes) under_way_[node];
  }
  // REQUIRES a node, that is, lose() has not thrown. What is under way at a node always fits into its link's
  // queue, so that no link is busy when a chunk is sent: that would lose the chunk.
  bool full() const {
    const Load& load = least()->second;
    size_t bytes = 0;
    for (const Given& given : load) bytes += given.bytes;
    return load.size() >= kChunksUnderWayMax || bytes + kChunkBytesMax > bytes_max_;
  }
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
    const size_t bytes = message.prepare_chunk().documents().size() + kMessageOverheadBytes;
    to->second.push_back({std::move(chunk), bytes});
  }

  // None: the node's chunks have gone to others already.
  std::optional<data::RawChunk> take_back(const std::string& node, uint64_t index) {
    const auto found = under_way_.find(node);
    if (found == under_way_.end()) return std::nullopt;
    Load& load = found->second;
    const auto given = std::find_if(load.begin(), load.end(),
                                    [index](const Given& each) { return each.chunk.index == index; });
    if (given == load.end())
      throw error(ErrorKind::protocol, "{} sent a shard of chunk {}, which it was not given", node, index);
    std::optional<data::RawChunk> chunk(std::move(given->chunk));
    load.erase(given);
    return chunk;
  }

  void lose(const std::string& node, const std::string& why) {
    const auto found = under_way_.find(node);
    if (found == under_way_.end()) return;
    for (Given& given : found->second) orphans_.push_back(std::move(given.chunk));
    say(fmt::format("troupe: lost node {} ({}); others take over its {} chunks", node, why,
                    found->second.size()));
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
  struct Given {
    data::RawChunk chunk;
    size_t bytes = 0;  // in the queue
  };
  using Load = std::vector<Given>;
  using Loads = std::map<std::string, Load>;
  Loads::iterator least() { return std::min_element(under_way_.begin(), under_way_.end(), by_load); }
  Loads::const_iterator least() const {
    return std::min_element(under_way_.begin(), under_way_.end(), by_load);
  }
  static bool by_load(const Loads::value_type& a, const Loads::value_type& b) {
    return a.second.size() < b.second.size();
  }

  ClusterClient& cluster_;
  const size_t bytes_max_;  // under way at one node
  Loads under_way_;
  std::vector<data::RawChunk> orphans_;
};

// Makes the shards that no node can send: of very short sentences they are several times as large as the
// text.
class LoaderHere {
 public:
  explicit LoaderHere(const data::PreparePlan& plan) : tokenise_(plan.work(), plan.tokenizer()) {}
  std::string shard_of(const data::RawChunk& chunk) {
    if (!std::exchange(told_, true))
      say("troupe: what becomes of this text is too large for a message (its sentences are very short); "
          "this process prepares such parts itself");
    return tokenise_(chunk);
  }

 private:
  data::ChunkTokeniser tokenise_;
  bool told_ = false;
};

// None when the patience is over. `give_up` throws when the work is to stop.
std::optional<ClusterEvent> next_event(ClusterClient& cluster, const std::function<bool()>& give_up) {
  const auto deadline = std::chrono::steady_clock::now() + kChunkPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    give_up();
    if (auto event = cluster.next(kAskAgain)) return event;
  }
  return std::nullopt;
}

void receive_one(ClusterClient& cluster, Dispatch& dispatch, data::PreparePlan& plan, LoaderHere& here,
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
  const auto chunk = dispatch.take_back(event->node, shard.index());
  if (!chunk) return;
  if (shard.shard().empty()) return plan.add_shard(chunk->index, here.shard_of(*chunk));
  plan.add_shard(chunk->index, shard.shard());
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

// This user's alone, under a name that nobody foresees: whoever could write the nodes' cluster file would say
// where they are.
class RemovedFolder {
 public:
  RemovedFolder() : path_((std::filesystem::temp_directory_path() / "troupe-prepare-XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr)
      throw error(ErrorKind::file,
                  "cannot make a temporary folder {}: set TMPDIR to a folder that you may write to", path_);
  }
  ~RemovedFolder() {
    std::error_code ignored;  // a leftover log folder harms nobody
    std::filesystem::remove_all(path_, ignored);
  }
  RemovedFolder(const RemovedFolder&) = delete;
  RemovedFolder& operator=(const RemovedFolder&) = delete;
  const std::string& text() const { return path_; }

 private:
  std::string path_;
};

// The first pass may take long. What happened to a link meanwhile counts only where it has not come back: its
// node has no part in the work yet. Returns the nodes that are there now, at least one.
std::vector<std::string> nodes_after_scan(ClusterClient& cluster, const std::function<bool()>& give_up) {
  std::vector<std::string> linked =
      cluster.wait_for_links(config::client_patience(cluster.cluster()), 1, give_up);
  for (const config::NodeConfig& node : cluster.cluster().listed())
    if (std::find(linked.begin(), linked.end(), node.name) == linked.end())
      say(fmt::format("troupe: lost node {} during the first pass; the others do without it", node.name));
  return linked;
}

}  // namespace

data::PrepareReport prepare_on_cluster(data::PrepareOptions options, ClusterClient& cluster, int threads,
                                       const data::ProgressFunction& progress,
                                       const std::function<bool()>& give_up) {
  const bool trains = options.tokenizer_file.empty();
  data::PreparePlan plan(std::move(options), progress);
  if (!trains) check_size(plan.tokenizer());
  plan.scan(threads);
  if (trains) check_size(plan.tokenizer());
  const auto stop_if_asked = [&give_up] {
    if (give_up && give_up()) throw error(ErrorKind::cancelled, "stopped before the dataset was whole");
    return false;
  };
  const std::vector<std::string> nodes = nodes_after_scan(cluster, stop_if_asked);
  wire::Envelope start;
  start.mutable_prepare_start()->set_work(data::encode_work(plan.work()));
  start.mutable_prepare_start()->set_tokenizer(plan.tokenizer().model_bytes());
  for (const std::string& node : nodes) cluster.send(node, start);
  Dispatch dispatch(cluster, nodes, start.ByteSizeLong());
  LoaderHere here(plan);
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
    receive_one(cluster, dispatch, plan, here, stop_if_asked);
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
