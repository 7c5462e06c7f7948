#include "kernels/base/error.hpp"

namespace troupe {

std::string_view to_string(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage: return "usage";
    case ErrorKind::file: return "file";
    case ErrorKind::corrupt: return "corrupt";
    case ErrorKind::version: return "version";
    case ErrorKind::peer_lost: return "peer lost";
    case ErrorKind::timeout: return "timeout";
    case ErrorKind::network: return "network";
    case ErrorKind::security: return "security";
    case ErrorKind::protocol: return "protocol";
    case ErrorKind::out_of_memory: return "out of memory";
    case ErrorKind::device: return "device";
    case ErrorKind::numeric: return "numeric";
    case ErrorKind::cancelled: return "cancelled";
  }
  return "unknown";
}

void check_failed(const char* expression, const char* file, int line, const std::string& message) {
  throw CheckFailure(fmt::format("{}:{}: check failed: {}{}{}", file, line, expression,
                                 message.empty() ? "" : ": ", message));
}

}  // namespace troupe
