// The edge between plain code, which throws, and actors, which do not. Whatever a guarded handler throws
// becomes one JobFailed at the supervisor, with the text of the error and the node that is to blame where
// there is one.
#pragma once

#include <exception>
#include <filesystem>
#include <system_error>
#include <utility>

#include <caf/error.hpp>
#include <caf/make_message.hpp>
#include <caf/result.hpp>
#include <caf/sec.hpp>

#include "actors/handles.hpp"
#include "comm/bulk.hpp"
#include "kernels/base/error.hpp"

namespace troupe::actors {

// The exception being handled as a message. Call it inside a catch block.
inline JobFailed current_failure() {
  try {
    throw;
  } catch (const comm::PeerError& problem) {
    return {problem.kind(), problem.what(), int64_t(problem.peer_rank())};
  } catch (const Error& problem) {
    return {problem.kind(), problem.what(), -1};
  } catch (const CheckFailure& bug) {
    return {ErrorKind::protocol, fmt::format("this is a bug in troupe, please report it: {}", bug.what()),
            -1};
  } catch (const std::bad_alloc&) {
    return {ErrorKind::out_of_memory, "out of memory: use a smaller model, fewer threads or shorter packs",
            -1};
  } catch (const std::filesystem::filesystem_error& problem) {
    return {ErrorKind::file, problem.what(), -1};
  } catch (const std::system_error& problem) {  // no thread more, say: this machine's trouble alone
    return {ErrorKind::device, fmt::format("the system has refused: {}", problem.what()), -1};
  } catch (const std::exception& problem) {
    return {ErrorKind::protocol, problem.what(), -1};
  }
}

template <class Self, class F>
void guarded(Self* self, const supervisor_actor& supervisor, F&& run) {
  try {
    std::forward<F>(run)();
  } catch (...) {
    self->send(supervisor, current_failure());
  }
}

// For handlers that answer: the one who asked gets an error, after the supervisor has been told why.
template <class T, class Self, class F>
caf::result<T> guarded_answer(Self* self, const supervisor_actor& supervisor, F&& run) {
  try {
    return std::forward<F>(run)();
  } catch (...) {
    JobFailed failure = current_failure();
    caf::error answer = caf::make_error(caf::sec::runtime_error, failure.message);
    self->send(supervisor, std::move(failure));
    return answer;
  }
}

// The error branch of a request. A role that failed has told the supervisor itself before; what is left is a
// role that did not answer in time or is gone.
template <class Self>
auto report_silence(Self* self, supervisor_actor supervisor, const char* whom) {
  return [self, supervisor, whom](const caf::error& problem) {
    self->send(supervisor, JobFailed{ErrorKind::timeout,
                                     fmt::format("the {} did not answer: {}", whom, to_string(problem)), -1});
  };
}

// An exception that escapes a handler ends the actor; its end carries the text.
template <class Self>
void use_exception_handler(Self* self) {
  self->set_exception_handler([](std::exception_ptr& thrown) -> caf::error {
    try {
      std::rethrow_exception(thrown);
    } catch (...) {
      return caf::make_error(caf::sec::runtime_error, current_failure().message);
    }
  });
}

}  // namespace troupe::actors
