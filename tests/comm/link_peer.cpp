// A node of its own process for the tests of links: echoes what it is sent until it is killed, or told to
// leave. link_peer NAME LISTEN INTERVAL_MS PATIENCE_MS [CERTIFICATE_FOLDER]
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include <sys/prctl.h>

#include "comm/link.hpp"
#include "comm/messages.pb.h"
#include "tests/comm/certificate_files.hpp"

using namespace troupe::comm;

int main(int count, char** arguments) {
  if (count < 5) return 2;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  LinkOptions options;
  options.node = arguments[1];
  options.cluster = "test";
  options.incarnation = new_incarnation();
  options.listen_address = arguments[2];
  options.interval_ms = std::atoi(arguments[3]);
  options.patience_ms = std::atoi(arguments[4]);
  if (count > 5) options.security = test::files_of(arguments[5], options.node);

  std::mutex mutex;
  std::condition_variable changed;
  LinkHub* hub = nullptr;
  bool leave = false;
  LinkEvents events;
  events.up = [](const LinkPeer&) {};
  events.down = [](const LinkPeer&, const troupe::Error&) {};
  events.message = [&](const LinkPeer& peer, const troupe::wire::Envelope& envelope) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return hub != nullptr; });
    leave = leave || envelope.has_leave();
    changed.notify_all();
    hub->send(peer.node, envelope);
  };
  LinkHub own(options, events);
  std::unique_lock lock(mutex);
  hub = &own;
  changed.notify_all();
  std::printf("listening %s\n", own.listen_address().c_str());
  std::fflush(stdout);
  changed.wait(lock, [&] { return leave; });
  lock.unlock();
  own.close(10000);
  return 0;
}
