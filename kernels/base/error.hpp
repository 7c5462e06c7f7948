// Errors of the whole project, in two kinds. A bug: CHECK(...) throws CheckFailure with its place in the source.
// The world failed (a file, a peer, a device, a setting): a typed Error that says what was tried, what happened
// and what to do. Both are thread-safe to throw from anywhere; nothing here logs.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace troupe {

enum class ErrorKind : uint8_t {
  usage = 1,      // wrong command line or configuration: exit code 2
  file,           // a file or folder: missing, unreadable, full disk
  corrupt,        // a file or message whose bytes are not what they claim to be
  version,        // written by a newer version
  peer_lost,      // a node went away
  timeout,        // a bounded wait came to its end
  network,        // cannot listen, connect or resolve
  security,       // certificates, refused peers
  protocol,       // a peer said something the protocol does not allow
  out_of_memory,  // says what would have fitted
  device,         // an accelerator or a numeric library failed
  numeric,        // the numbers went wrong (NaN in every step, unequal digests)
  cancelled,      // the user asked to stop
};

std::string_view to_string(ErrorKind kind);

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

// throw error(ErrorKind::file, "cannot open {}: {}", path, reason);
template <typename... Args>
Error error(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  return Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

// A broken promise inside the program.
class CheckFailure : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void check_failed(const char* expression, const char* file, int line, const std::string& message);

}  // namespace troupe

// CHECK(condition) or CHECK(condition, "rows {} of {}", row, rows). Stays in release builds.
#define TROUPE_CHECK(condition, ...)                                                               \
  do {                                                                                             \
    if (!(condition)) [[unlikely]]                                                                 \
      ::troupe::check_failed(#condition, __FILE__, __LINE__, ::troupe::detail::check_message(__VA_ARGS__)); \
  } while (false)

namespace troupe::detail {
inline std::string check_message() { return {}; }
template <typename... Args>
std::string check_message(fmt::format_string<Args...> format, Args&&... args) {
  return fmt::format(format, std::forward<Args>(args)...);
}
}  // namespace troupe::detail
