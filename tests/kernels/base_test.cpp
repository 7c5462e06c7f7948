#include <set>

#include <doctest/doctest.h>

#include "kernels/base/error.hpp"
#include "kernels/base/hash.hpp"
#include "kernels/base/random.hpp"

using namespace troupe;

TEST_CASE("Philox gives the published answers of Random123") {
  CHECK(Philox{0, 0}(0, 0) == std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(Philox{0xffffffff, 0xffffffff}(~0ull, ~0ull) ==
        std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
}

TEST_CASE("a permutation visits every index once, at every size") {
  for (uint64_t size : {1u, 2u, 3u, 4u, 5u, 31u, 64u, 1000u}) {
    const Permutation permutation(mix64(7, size), size);
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t image = permutation(i);
      CHECK(image < size);
      seen.insert(image);
    }
    CHECK(seen.size() == size);
  }
}

TEST_CASE("SHA-256 of the empty string and of abc") {
  CHECK(sha256_hex("", 0) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_hex("abc", 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("a failed check names its place and its message") {
  try {
    TROUPE_CHECK(1 == 2, "one is {}", 1);
    FAIL("not reached");
  } catch (const CheckFailure& failure) {
    const std::string what = failure.what();
    CHECK(what.find("base_test.cpp") != std::string::npos);
    CHECK(what.find("1 == 2: one is 1") != std::string::npos);
  }
}
