#include "comm/tls_channel.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include "comm/tls.hpp"

namespace troupe::comm {
namespace {

// OpenSSL's own socket BIO writes without MSG_NOSIGNAL: a peer that left would kill the process.
int fd_of(BIO* bio) {
  return *static_cast<const int*>(BIO_get_data(bio));
}

int finish_io(BIO* bio, ssize_t count, int retry) {
  BIO_clear_retry_flags(bio);
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
    BIO_set_flags(bio, retry | BIO_FLAGS_SHOULD_RETRY);
  return int(count);
}
int write_quietly(BIO* bio, const char* data, int bytes) {
  return finish_io(bio, send(fd_of(bio), data, size_t(bytes), MSG_NOSIGNAL), BIO_FLAGS_WRITE);
}
int read_quietly(BIO* bio, char* data, int bytes) {
  return finish_io(bio, recv(fd_of(bio), data, size_t(bytes), 0), BIO_FLAGS_READ);
}
long control(BIO*, int command, long, void*) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}
int create(BIO* bio) {
  BIO_set_init(bio, 1);
  return 1;
}

struct FreeMethod {
  void operator()(BIO_METHOD* method) const { BIO_meth_free(method); }
};
using Method = std::unique_ptr<BIO_METHOD, FreeMethod>;

// Without a type number of its own: nobody looks for one, and a process has few, which are never given back.
Method make_method() {
  Method method(BIO_meth_new(BIO_TYPE_SOURCE_SINK, "troupe socket"));
  TROUPE_CHECK(method != nullptr && BIO_meth_set_write(method.get(), write_quietly) == 1 &&
               BIO_meth_set_read(method.get(), read_quietly) == 1 &&
               BIO_meth_set_ctrl(method.get(), control) == 1 &&
               BIO_meth_set_create(method.get(), create) == 1);
  return method;
}

class TlsChannel : public ByteChannel {
 public:
  TlsChannel(Descriptor socket, std::shared_ptr<SSL_CTX> context)
      : socket_(std::move(socket)),
        fd_(socket_.get()),
        context_(std::move(context)),
        method_(make_method()),
        ssl_(make_ssl(context_.get(), fd_)) {
    BIO* bio = BIO_new(method_.get());
    TROUPE_CHECK(bio != nullptr);
    BIO_set_data(bio, &fd_);
    SSL_set_bio(ssl_.get(), bio, bio);
    SSL_set_mode(ssl_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  }

  SSL* ssl() { return ssl_.get(); }
  // Of the handshake. Empty `why` and false: has to wait.
  bool handshake_step(std::string& why) {
    errno = 0;
    const int done = SSL_connect(ssl_.get());
    return done == 1 || (result(done, why), false);
  }

  Moved read(std::span<std::byte> into) override {
    if (into.empty()) return {};
    size_t bytes = 0;
    Moved moved;
    errno = 0;
    if (SSL_read_ex(ssl_.get(), into.data(), into.size(), &bytes) == 1) return {bytes, false, {}};
    moved.closed = result(0, moved.why);
    return moved;
  }
  Moved write(std::span<const std::byte> from) override {
    size_t bytes = 0;
    Moved moved;
    errno = 0;
    if (from.empty() || SSL_write_ex(ssl_.get(), from.data(), from.size(), &bytes) == 1)
      return {bytes, false, {}};
    moved.closed = result(0, moved.why);
    return moved;
  }
  void wait(bool readable, bool writable, Deadline deadline) override {
    // Once established, TLS 1.3 reads to read and writes to write; in the handshake OpenSSL says what it
    // wants.
    const int want = readable || writable ? 0 : wanted_.load();
    const short events = short((readable || want == SSL_ERROR_WANT_READ ? POLLIN : 0) |
                               (writable || want == SSL_ERROR_WANT_WRITE ? POLLOUT : 0));
    std::array<pollfd, 2> entries{pollfd{fd_, events, 0}, pollfd{interrupted_.fd(), POLLIN, 0}};
    const int ready = poll(entries.data(), entries.size(), milliseconds_until(deadline));
    TROUPE_CHECK(ready >= 0 || errno == EINTR, "poll: {}", std::strerror(errno));
  }
  void interrupt() noexcept override { interrupted_.signal(); }
  bool encrypted() const override { return true; }
  bool peer_carries(const std::string& name) const override { return peer_carries_name(ssl_.get(), name); }

 private:
  // After a call, begun with errno 0, that did not succeed: true when the connection is over.
  bool result(int code, std::string& why) {
    const int system_error = errno;
    const int kind = SSL_get_error(ssl_.get(), code);
    const bool openssl_says = ERR_peek_error() != 0;
    const std::string reasons = take_ssl_errors();
    wanted_ = kind;
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) return false;
    if (openssl_says)
      why = reasons;
    else
      why = system_error != 0 ? std::strerror(system_error) : "it closed the connection";
    return true;
  }

  Descriptor socket_;
  int fd_;
  std::shared_ptr<SSL_CTX> context_;
  Method method_;
  SslHandle ssl_;
  Wakeup interrupted_;
  std::atomic<int> wanted_ = 0;
};

}  // namespace

std::unique_ptr<ByteChannel> dial_tls_channel(Descriptor socket, const std::shared_ptr<SSL_CTX>& context,
                                              const std::string& name, const Patience& patience,
                                              std::string& why) {
  auto channel = std::make_unique<TlsChannel>(std::move(socket), context);
  expect_peer(channel->ssl(), name);
  for (;;) {
    std::string over;
    if (channel->handshake_step(over)) return channel;
    if (!over.empty()) {
      why = over;
      if (SSL_get_verify_result(channel->ssl()) != X509_V_OK)
        throw error(ErrorKind::security,
                    "the certificate of {} is refused: {}; check ca, certificate and names in the "
                    "cluster file",
                    name, over);
      return nullptr;
    }
    if (patience.over()) {
      why = "no answer in the TLS handshake";
      return nullptr;
    }
    channel->wait(false, false, patience.next_look());
  }
}

std::unique_ptr<ByteChannel> accept_tls_channel(Descriptor socket, const std::shared_ptr<SSL_CTX>& context) {
  auto channel = std::make_unique<TlsChannel>(std::move(socket), context);
  SSL_set_accept_state(channel->ssl());
  return channel;
}

}  // namespace troupe::comm
