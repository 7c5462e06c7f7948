// What NCCL says where there is no GPU.
#include "comm/nccl_group.hpp"

#include <cstdlib>

#include <doctest/doctest.h>

#include "kernels/base/error.hpp"
#include "kernels/cuda/backend.hpp"

using namespace troupe;

// NCCL looks for a network once in a process: where other tests make groups, it has found one.
TEST_CASE("a group that cannot be made says why in NCCL's own words" *
          doctest::skip(kernels::cuda_device_count() > 1)) {
  ::setenv("NCCL_SOCKET_IFNAME", "none", 1);
  const auto group = comm::make_nccl_group({});
  try {
    group->new_id();
    FAIL("an id without a network");
  } catch (const Error& failure) {
    CHECK(failure.kind() == ErrorKind::device);
    CHECK(std::string(failure.what()).find("no socket interface found") != std::string::npos);
  }
  ::unsetenv("NCCL_SOCKET_IFNAME");
}
