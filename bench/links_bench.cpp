// What a link between two processes of this machine can do, plain and with mutual TLS:
// bench_links [ROUND_TRIPS] prints the round trip of a small message, messages a second and bytes a second.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <thread>
#include <vector>

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/certificates.hpp"
#include "comm/link.hpp"
#include "comm/messages.pb.h"

using namespace troupe;
using namespace troupe::comm;
using Clock = std::chrono::steady_clock;

namespace {

LinkOptions options_for(const std::string& node, const std::string& certificates) {
  LinkOptions options;
  options.node = node;
  options.cluster = "bench";
  options.incarnation = new_incarnation();
  if (!certificates.empty())
    options.security = {certificates + "/ca.pem", certificates + "/" + node + ".pem",
                        certificates + "/" + node + ".key", false};
  return options;
}

// The other process: answers what asks for an answer, and takes in the rest.
[[noreturn]] void serve(const std::string& certificates, int address_pipe) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  LinkHub* hub = nullptr;
  std::mutex mutex;
  LinkEvents events{[](const LinkPeer&) {},
                    [&](const LinkPeer& peer, const wire::Envelope& envelope) {
                      if (envelope.claim().wanted() == 0) return;
                      { const std::lock_guard ready(mutex); }
                      wire::Envelope answer;
                      answer.mutable_grant()->set_sequence(envelope.claim().sequence());
                      hub->send(peer.node, answer);
                    },
                    [](const LinkPeer&, const Error&) {},
                    {}};
  LinkOptions options = options_for("n2", certificates);
  options.listen_address = "127.0.0.1:0";
  std::unique_lock starting(mutex);
  LinkHub own(options, events);
  hub = &own;
  starting.unlock();
  const std::string line = own.listen_address() + "\n";
  if (write(address_pipe, line.data(), line.size()) < 0) std::_Exit(1);
  for (;;) pause();
}

class Caller {
 public:
  Caller(const std::string& certificates, const std::string& address)
      : hub_(options_for("n1", certificates), {[this](const LinkPeer&) { note(up_); },
                                               [this](const LinkPeer&, const wire::Envelope& envelope) {
                                                 note(answered_, envelope.grant().sequence());
                                               },
                                               [](const LinkPeer&, const Error& why) {
                                                 if (why.kind() != ErrorKind::cancelled)
                                                   std::fprintf(stderr, "down: %s\n", why.what());
                                               },
                                               {}}) {
    hub_.dial("n2", address);
    wait(up_, 1);
  }

  // Sends until the queue takes it.
  void post(const wire::Envelope& envelope) {
    while (hub_.send("n2", envelope) == Sent::busy)
      std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  void ask(uint64_t sequence) {
    wire::Envelope envelope;
    envelope.mutable_claim()->set_sequence(sequence);
    envelope.mutable_claim()->set_wanted(1);
    post(envelope);
    wait(answered_, sequence);
  }

 private:
  void note(uint64_t& what, uint64_t value = 1) {
    const std::lock_guard lock(mutex_);
    what = value;
    changed_.notify_all();
  }
  void wait(const uint64_t& what, uint64_t value) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return what >= value; });
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t up_ = 0, answered_ = 0;
  LinkHub hub_;
};

void measure(const char* name, const std::string& certificates, int round_trips) {
  int address_pipe[2];
  if (pipe(address_pipe) != 0) std::exit(1);
  const pid_t child = fork();  // before this process has threads of its own
  if (child == 0) serve(certificates, address_pipe[1]);
  char address[128] = {};
  const ssize_t bytes = read(address_pipe[0], address, sizeof address - 1);
  if (bytes <= 0) std::exit(1);
  address[bytes - 1] = '\0';
  uint64_t sequence = 0;
  {
    Caller caller(certificates, address);
    std::vector<double> us;
    for (int i = 0; i < round_trips; ++i) {
      const auto begin = Clock::now();
      caller.ask(++sequence);
      us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
    }
    std::sort(us.begin(), us.end());
    const auto rate = [&](const wire::Envelope& envelope, int count) {
      const auto begin = Clock::now();
      for (int i = 0; i < count; ++i) caller.post(envelope);
      caller.ask(++sequence);
      return count / std::chrono::duration<double>(Clock::now() - begin).count();
    };
    wire::Envelope small, large;
    small.mutable_claim()->set_sequence(1);
    large.mutable_prepare_chunk()->set_documents(std::string(64 << 10, 'x'));
    const double messages = rate(small, 20 * round_trips);
    const double megabytes = rate(large, round_trips) * (64 << 10) / 1e6;
    std::printf("%-6s round trip p50 %.0f us, p99 %.0f us; %.0f messages/s; 64 KiB messages %.0f MB/s\n",
                name, us[us.size() / 2], us[us.size() * 99 / 100], messages, megabytes);
  }
  kill(child, SIGKILL);
  close(address_pipe[0]);
  close(address_pipe[1]);
}

}  // namespace

int main(int count, char** arguments) {
  const int round_trips = count > 1 ? std::atoi(arguments[1]) : 5000;
  if (round_trips < 100) {
    std::fprintf(stderr, "usage: bench_links [ROUND_TRIPS], at least 100\n");
    return 2;
  }
  std::string folder = (std::filesystem::temp_directory_path() / "troupe-bench-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) {
    std::perror(folder.c_str());
    return 1;
  }
  make_certificates({folder + "/certs", "bench", {{"n1", {}}, {"n2", {}}}, 1});
  // One process a measurement: gRPC's threads do not survive a fork.
  for (const bool tls : {false, true})
    if (fork() == 0) {
      measure(tls ? "TLS" : "plain", tls ? folder + "/certs" : "", round_trips);
      std::fflush(stdout);
      std::_Exit(0);
    } else {
      int status = 0;
      if (wait(&status) < 0 || status != 0) return 1;
    }
  std::filesystem::remove_all(folder);
  return 0;
}
