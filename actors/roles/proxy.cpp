#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

#include "actors/roles/roles.hpp"
#include "actors/wire.hpp"
#include "comm/messages.hpp"

namespace troupe::actors {

post_actor::behavior_type proxy(post_actor::pointer, JobContextPtr context, std::string node) {
  return {
      // A lost message is not silent: the link is reported down, or the sender repeats itself.
      [context, node](const Post& post) {
        if (context->services->links->send(node, *post.envelope) == comm::Sent::busy)
          spdlog::warn("the link to {} is full: dropped a {}", node, wire::kind_name(*post.envelope));
      },
  };
}

}  // namespace troupe::actors
