// The main of every test program: no process that a test case has started outlives it.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "tests/support/leftovers.hpp"

namespace {

// Between test cases, whatever is still there is what a failed one left behind.
class EndOfCase : public doctest::IReporter {
 public:
  explicit EndOfCase(const doctest::ContextOptions&) {}
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats&) override {}
  void test_case_start(const doctest::TestCaseData&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override { troupe::test::kill_leftovers(); }
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};
DOCTEST_REGISTER_LISTENER("end_of_case", 1, EndOfCase);

}  // namespace

int main(int count, char** arguments) {
  const troupe::test::Keeper keeper;
  return doctest::Context(count, arguments).run();
}
