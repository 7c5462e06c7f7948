#include "scheduler/fingerprint.hpp"

#include <doctest/doctest.h>

using troupe::scheduler::first_difference;

TEST_CASE("the first line that differs is named, whichever side has more") {
  CHECK(first_difference("a=1\nb=2\n", "a=1\nb=3\n") == "\"b=3\" instead of \"b=2\"");
  CHECK(first_difference("a=1\n", "a=1\nb=3\n") == "\"b=3\" instead of \"\"");
  CHECK(first_difference("a=1\nb=2\n", "a=1\n") == "\"\" instead of \"b=2\"");
  CHECK(first_difference("a=1\n", "a=1\n") == "its fingerprint");
}
