// The first message each way on a new stream, and what must be true of it. Pure functions. Internal to the
// links.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comm/link.hpp"
#include "comm/messages.pb.h"

namespace troupe::comm {

inline constexpr size_t kHelloBytesMax = 4096;  // all that an end which has not said hello may send

bool is_client_name(std::string_view node);  // "client:<hex>", 1 to 32 lower-case digits

wire::Envelope make_hello(const LinkOptions& options);

// What the other end says about itself, or why it is refused. `dialled` is the node that we wanted, empty
// when we were dialled; `certificate_names` are those that TLS proved, `tls` whether there was TLS.
struct HelloCheck {
  std::string dialled;
  bool tls = false;
  std::vector<std::string> certificate_names;
};
std::optional<Error> check_hello(const wire::Envelope& envelope, const LinkOptions& options,
                                 const HelloCheck& check);

}  // namespace troupe::comm
