// `troupe prepare` on several nodes: raw documents go out to the nodes' loaders, tokenised shards come back.
// The folder is the same bytes as prepare_local() makes, whatever the number of loaders.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "data/prepare.hpp"

namespace troupe::actors {

class ClusterClient;

// `threads` are for the first pass, here. The chunks of a node that is lost go to the others. Throws
// Error(network) when no node is linked any more after the first pass, Error(peer_lost) when the last one is
// lost later, Error(usage) when the tokenizer is larger than a message may be (one that is given: before the
// first pass), Error(cancelled) when `give_up`, which is asked now and then, says so while nodes or shards
// are waited for, and what a node reports as wrong.
data::PrepareReport prepare_on_cluster(data::PrepareOptions options, ClusterClient& cluster, int threads,
                                       const data::ProgressFunction& progress = {},
                                       const std::function<bool()>& give_up = {});

// With node processes of its own on this machine, which end with it; `program` as for LocalCluster.
data::PrepareReport prepare_on_local_nodes(data::PrepareOptions options, int64_t nodes, int64_t threads,
                                           const std::string& program,
                                           const data::ProgressFunction& progress = {},
                                           const std::function<bool()>& give_up = {});

}  // namespace troupe::actors
