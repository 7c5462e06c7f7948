// A stream of the links against a stand-in for gRPC's call that notices what gRPC does not forgive.
#include "comm/link_stream.hpp"

#include <doctest/doctest.h>

#include "comm/link_checksum.hpp"

namespace troupe::comm::test {
namespace {

// gRPC's call, kept alive by what is under way and, until writing has ended, by the stream itself. The test
// plays gRPC: it says when an operation is done.
class CallStream final : public LinkStream {
 public:
  void message() {  // the read under way brings one
    std::string bytes = "text";
    append_checksum(bytes, messages_++);
    on_read(true, bytes);
    over();
  }
  void end_of_messages() {
    on_read(false, {});
    over();
  }
  void written() {
    on_written(true);
    over();
  }
  void done() {
    CHECK(gone());
    on_done({});
  }
  bool gone() const { return under_way_ == 0; }
  int reads() const { return reads_; }
  int cancelled() const { return cancelled_; }
  bool used_when_gone() const { return used_when_gone_; }

 protected:
  void start_call() override {
    under_way_ = 1;  // until writing has ended
    start_read();
  }
  void start_read() override {
    begin();
    ++reads_;
  }
  void start_write(std::string) override { begin(); }
  void end_writes() override { over(); }
  void end_refusing(const Error&) override { over(); }
  void end_at_once() override { ++cancelled_; }

 private:
  void begin() {
    used_when_gone_ |= gone();
    ++under_way_;
  }
  void over() { --under_way_; }

  int under_way_ = 0, reads_ = 0, cancelled_ = 0;
  uint64_t messages_ = 0;
  bool used_when_gone_ = false;
};

struct Listener final : LinkStream::Owner {
  explicit Listener(LinkStream& of) : stream(of) {}
  void received(std::string_view) override {
    ++messages;
    if (reads_on) stream.read_next();
  }
  void received_damaged() override { FAIL("what arrived is what was sent"); }
  void ended(const StreamEnd& how) override { end = how; }

  LinkStream& stream;
  bool reads_on = true;
  int messages = 0;
  std::optional<StreamEnd> end;
};

struct Streaming {
  Streaming() { stream->start(listener); }
  const std::shared_ptr<CallStream> stream = std::make_shared<CallStream>();
  const std::shared_ptr<Listener> listener = std::make_shared<Listener>(*stream);
};

TEST_CASE("a stream that has ended its writing goes on receiving until the other end is done") {
  Streaming test;
  test.stream->finish();
  test.stream->message();
  test.stream->message();
  CHECK(test.listener->messages == 2);
  CHECK(test.stream->reads() == 3);
  test.stream->end_of_messages();
  CHECK(!test.stream->used_when_gone());
  CHECK(test.stream->cancelled() == 0);
  test.stream->done();
  CHECK(test.listener->end.has_value());
}

TEST_CASE("a stream reads no more once the call may be gone: it ends instead, as closed") {
  Streaming test;
  test.listener->reads_on = false;  // as one that waits for another stream's end
  test.stream->message();
  test.stream->finish();
  REQUIRE(test.stream->gone());  // its end is on the way
  test.stream->read_next();
  CHECK(!test.stream->used_when_gone());
  CHECK(test.stream->reads() == 1);
  CHECK(test.stream->cancelled() == 1);
  test.stream->done();
  REQUIRE(test.listener->end.has_value());
  CHECK(test.listener->end->cause == StreamEnd::Cause::closed);
  test.stream->read_next();  // after the end: nothing
  CHECK(test.stream->reads() == 1);
}

TEST_CASE("a write under way when the stream finishes ends the writing when it is done") {
  Streaming test;
  test.listener->reads_on = false;
  test.stream->message();
  REQUIRE(test.stream->send("a", 1000) == Sent::ok);
  test.stream->finish();
  test.stream->read_next();  // the write keeps the call alive
  CHECK(test.stream->reads() == 2);
  test.stream->written();
  CHECK(!test.stream->gone());
  test.stream->end_of_messages();
  CHECK(test.stream->send("b", 1000) == Sent::down);
  CHECK(!test.stream->used_when_gone());
  test.stream->done();
}

}  // namespace
}  // namespace troupe::comm::test
