#include "actors/guarded.hpp"

#include <filesystem>
#include <functional>
#include <new>

#include <doctest/doctest.h>

using namespace troupe;
using namespace troupe::actors;

namespace {

JobFailed failure_of(const std::function<void()>& run) {
  try {
    run();
  } catch (...) {
    return current_failure();
  }
  return {};
}

}  // namespace

TEST_CASE("what a handler throws says whose trouble it is") {
  const std::error_code no_more = std::make_error_code(std::errc::resource_unavailable_try_again);
  const JobFailed lost = failure_of([] { throw comm::PeerError(ErrorKind::peer_lost, 2, "lost beta"); });
  CHECK(lost.kind == ErrorKind::peer_lost);
  CHECK(lost.suspect == 2);
  CHECK(failure_of([&] { throw std::system_error(no_more, "thread"); }).kind == ErrorKind::device);
  CHECK(failure_of([&] { throw std::filesystem::filesystem_error("x", no_more); }).kind == ErrorKind::file);
  CHECK(failure_of([] { throw std::bad_alloc(); }).kind == ErrorKind::out_of_memory);
  CHECK(failure_of([] { throw std::runtime_error("x"); }).kind == ErrorKind::protocol);
  CHECK(failure_of([] { TROUPE_CHECK(false); }).message.find("bug in troupe") != std::string::npos);
}
