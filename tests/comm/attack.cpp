#include "tests/comm/attack.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <vector>

#include <doctest/doctest.h>
#include <malloc.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/tls.hpp"
#include "tests/comm/raw_socket.hpp"

namespace troupe::comm::test {

namespace {

constexpr int64_t kEndMs = 30'000;

class Attacker {
 public:
  explicit Attacker(AttackInput input)
      : input_(std::move(input)), socket_(raw_connect(input_.address)), deadline_(deadline_in_ms(kEndMs)) {
    if (input_.tls == nullptr) return;
    ssl_ = make_ssl(input_.tls, socket_.get());
    SSL_set_connect_state(ssl_.get());
    shaking_ = true;
  }

  pollfd wanted() const { return {socket_.get(), events_, 0}; }
  bool over() const { return over_; }
  bool late() const { return Clock::now() >= deadline_; }

  // Goes on as far as it can.
  void step(AttackTotals& totals) {
    if (late()) {
      ++totals.not_ended;
      over_ = true;
    }
    while (!over_ && advance(totals)) {
    }
  }

 private:
  // One call; false when it has to wait.
  bool advance(AttackTotals& totals) {
    if (shaking_) {
      const int done = SSL_connect(ssl_.get());
      if (done != 1) return wait_for(done);
      shaking_ = false;
      ++totals.handshakes;
      return true;
    }
    if (sent_ < input_.bytes.size()) {
      const long count =
          ssl_ ? SSL_write(ssl_.get(), input_.bytes.data() + sent_, int(input_.bytes.size() - sent_))
               : send(socket_.get(), input_.bytes.data() + sent_, input_.bytes.size() - sent_, MSG_NOSIGNAL);
      if (count <= 0) return wait_for(count);
      sent_ += size_t(count);
      totals.bytes += uint64_t(count);
      return true;
    }
    if (input_.reset) return reset();
    if (!said_all_) {
      shutdown(socket_.get(), SHUT_WR);
      said_all_ = true;
    }
    std::array<char, 4096> answer;
    const long count = ssl_ ? SSL_read(ssl_.get(), answer.data(), int(answer.size()))
                            : recv(socket_.get(), answer.data(), answer.size(), 0);
    if (count <= 0) return wait_for(count);
    if (!answered_) ++totals.answered;
    answered_ = true;
    return true;
  }

  bool wait_for(long result) {
    events_ = sent_ < input_.bytes.size() && !shaking_ ? POLLIN | POLLOUT : POLLIN;
    if (ssl_) {
      const int kind = SSL_get_error(ssl_.get(), int(result));
      ERR_clear_error();
      if (kind == SSL_ERROR_WANT_READ) events_ = POLLIN;
      if (kind == SSL_ERROR_WANT_WRITE) events_ = POLLOUT;
      over_ = kind != SSL_ERROR_WANT_READ && kind != SSL_ERROR_WANT_WRITE;
    } else {
      events_ = sent_ < input_.bytes.size() ? POLLOUT : POLLIN;
      over_ = result == 0 || (errno != EAGAIN && errno != EINTR);
    }
    return false;
  }

  bool reset() {
    const linger at_once{1, 0};
    setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    over_ = true;
    return false;
  }

  AttackInput input_;
  Descriptor socket_;
  SslHandle ssl_;
  Deadline deadline_;
  size_t sent_ = 0;
  short events_ = POLLOUT;
  bool shaking_ = false, said_all_ = false, answered_ = false, over_ = false;
};

}  // namespace

AttackTotals attack(uint64_t count, size_t at_once, const std::function<AttackInput(uint64_t)>& next) {
  std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes to sockets that the other end has closed
  AttackTotals totals;
  std::vector<std::unique_ptr<Attacker>> under_way;
  const auto begin = Clock::now();
  while (totals.inputs < count || !under_way.empty()) {
    while (totals.inputs < count && under_way.size() < at_once)
      under_way.push_back(std::make_unique<Attacker>(next(totals.inputs++)));
    std::vector<pollfd> entries;
    for (const auto& each : under_way) entries.push_back(each->wanted());
    poll(entries.data(), entries.size(), 1000);
    for (size_t i = 0; i < entries.size(); ++i)
      if (entries[i].revents != 0 || under_way[i]->late()) under_way[i]->step(totals);
    if (totals.inputs % 64 == 0)
      totals.descriptors_max = std::max(totals.descriptors_max, open_descriptors());
    std::erase_if(under_way, [](const auto& each) { return each->over(); });
  }
  totals.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return totals;
}

uint64_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return uint64_t(std::distance(begin(all), end(all))) - 1;  // without the one that reads them
}

uint64_t resident_bytes() {
  malloc_trim(0);
  std::ifstream file("/proc/self/statm");
  uint64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * uint64_t(sysconf(_SC_PAGESIZE));
}

}  // namespace troupe::comm::test
