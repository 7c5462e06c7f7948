#include "actors/job_start.hpp"

#include <algorithm>
#include <filesystem>

#include "actors/node_names.hpp"
#include "comm/messages.pb.h"
#include "kernels/base/cores.hpp"
#include "kernels/base/hash.hpp"

namespace troupe::actors {

namespace {

comm::Transport transport_of(const wire::StartJob& start, const config::ClusterConfig& cluster) {
  if (start.transport() == "tcp") return comm::Transport::tcp;
  if (start.transport() == "shm") return comm::Transport::shm;
  switch (cluster.transport) {
    case config::Transport::tcp:
      return comm::Transport::tcp;
    case config::Transport::shm:
      return comm::Transport::shm;
    case config::Transport::automatic:
      break;
  }
  return comm::Transport::automatic;
}

// Whom the client has found, and where, which counts for those of whom our file leaves it open: from another
// network the client may see them elsewhere. Ranks are places in the file, so its file must agree with ours.
void expect_nodes(JobContext& context, const wire::StartJob& start) {
  std::vector<config::NodeConfig>& nodes = context.cluster.nodes;
  auto from = nodes.begin();
  for (const wire::NodeAddress& where : start.nodes()) {
    const auto node = std::find_if(from, nodes.end(), [&](const auto& n) { return n.name == where.name(); });
    if (node == nodes.end())
      throw error(ErrorKind::usage,
                  "the cluster file of {} lists {}, and the client's has {} in another place; all must list "
                  "the same nodes in the same order",
                  context.services->node, node_names(context.cluster), where.name());
    const bool own = size_t(node - nodes.begin()) == context.services->rank;  // it may listen on 0.0.0.0
    if (own || node->address.ends_with(":0")) node->address = where.address();
    context.awaited.push_back(scheduler::Rank(node - nodes.begin()));
    from = node + 1;
  }
}

}  // namespace

std::string job_id_of(const std::string& job_text) {
  const auto id = Sha256().update(job_text).digest();
  return {id.begin(), id.end()};
}

JobContextPtr job_context(const std::shared_ptr<const NodeServices>& services, const wire::StartJob& start) {
  auto context = std::make_shared<JobContext>();
  context->services = services;
  context->cluster = services->cluster;
  expect_nodes(*context, start);
  if (context->awaited.empty())
    for (size_t i = 0; i < context->cluster.listed().size(); ++i)
      context->awaited.push_back(scheduler::Rank(i));
  context->job = config::parse_job("the job", start.job_toml());
  context->job_text = config::canonical_text(context->job);
  context->job_id = job_id_of(context->job_text);
  context->data_folder = services->data_folder.empty() ? start.data_folder() : services->data_folder;
  context->out_folder = services->out_folder.empty() ? start.out_folder() : services->out_folder;
  context->resume = start.resume();
  context->stop_at = start.stop_at();
  context->transport = transport_of(start, context->cluster);
  const int64_t configured = context->cluster.nodes.at(services->rank).threads;
  context->workers = services->devices.kind != config::DeviceKind::cpu
                         ? uint32_t(services->devices.indices.size())
                     : start.threads() > 0 ? start.threads()
                     : configured > 0      ? uint32_t(configured)
                                           : usable_cores();
  if (context->out_folder.empty()) throw error(ErrorKind::usage, "no --out folder was given");
  std::error_code failed;
  std::filesystem::create_directories(context->out_folder, failed);
  if (failed)
    throw error(ErrorKind::file, "cannot make the folder {}: {}; choose another --out", context->out_folder,
                failed.message());
  return context;
}

int exit_code_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage:
      return 2;
    case ErrorKind::cancelled:
      return 130;
    default:
      return 1;
  }
}

}  // namespace troupe::actors
