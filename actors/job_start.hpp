// From a StartJob to the context of a job: its text parsed, its folders, workers and addresses settled.
#pragma once

#include "actors/job_context.hpp"

namespace troupe::wire {
class StartJob;
}

namespace troupe::actors {

// Throws Error(usage) for a job that cannot be.
JobContextPtr job_context(const std::shared_ptr<const NodeServices>& services, const wire::StartJob& start);

// Of a canonical text: its SHA-256, 32 bytes.
std::string job_id_of(const std::string& job_text);

int exit_code_of(ErrorKind kind);  // 2 for usage, 130 for cancelled, else 1

}  // namespace troupe::actors
