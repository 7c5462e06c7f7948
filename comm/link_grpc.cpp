#include "comm/link_grpc.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <utility>

#include <google/protobuf/stubs/logging.h>
#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <sys/resource.h>

#include "comm/link_checksum.hpp"
#include "comm/messages.hpp"

namespace troupe::comm {

namespace {

constexpr char kMethod[] = "/troupe.wire.Link/Connect";
constexpr auto kRefusalCode = grpc::StatusCode::FAILED_PRECONDITION;  // with the error's kind as details

grpc::ByteBuffer to_buffer(std::string bytes) {
  auto* kept = new std::string(std::move(bytes));
  const grpc::Slice slice(
      kept->data(), kept->size(), [](void* text) { delete static_cast<std::string*>(text); }, kept);
  return grpc::ByteBuffer(&slice, 1);
}

// Calls use(ok, bytes) with the buffer's content in one piece.
template <typename Use>
void with_bytes(grpc::ByteBuffer& buffer, Use use) {
  grpc::Slice slice;
  if (!buffer.TrySingleSlice(&slice).ok() && !buffer.DumpToSingleSlice(&slice).ok()) slice = grpc::Slice();
  buffer.Clear();
  use(std::string_view(reinterpret_cast<const char*>(slice.begin()), slice.size()));
}

StreamEnd refusal_from(const grpc::Status& status) {
  int kind = 0;
  const std::string details = status.error_details();
  std::from_chars(details.data(), details.data() + details.size(), kind);
  const bool known = kind >= int(ErrorKind::usage) && kind <= int(ErrorKind::cancelled);
  return {StreamEnd::Cause::refused, known ? ErrorKind(kind) : ErrorKind::protocol,
          status.error_message().substr(0, wire::kTextBytesMax)};
}

StreamEnd end_from(const grpc::Status& status) {
  const std::string text = status.error_message().substr(0, wire::kTextBytesMax);
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return {StreamEnd::Cause::closed, ErrorKind::peer_lost, ""};
    case kRefusalCode:
      return refusal_from(status);
    case grpc::StatusCode::UNIMPLEMENTED:
      return {StreamEnd::Cause::refused, ErrorKind::protocol, "what answers there is no node of troupe"};
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return {StreamEnd::Cause::refused, ErrorKind::protocol, text};
    default:
      break;
  }
  const auto says = [&](std::string_view word) { return text.find(word) != std::string::npos; };
  const bool tls = says("SSL") || says("Ssl") || says("andshake") || says("ertificate") || says("Peer name");
  return {StreamEnd::Cause::lost, tls ? ErrorKind::security : ErrorKind::network, text};
}

class ServerStream final : public LinkStream, public grpc::ServerGenericBidiReactor {
 public:
  explicit ServerStream(grpc::GenericCallbackServerContext* context) : context_(context) {
    if (const auto auth = context->auth_context())
      for (const char* property : {"x509_subject_alternative_name", "x509_common_name"})
        for (const auto& value : auth->FindPropertyValues(property))
          names_.emplace_back(value.data(), value.size());
  }
  std::vector<std::string> peer_names() const override { return names_; }

  void OnReadDone(bool ok) override {
    if (!ok) return on_read(false, {});
    with_bytes(reading_, [this](std::string_view bytes) { on_read(true, bytes); });
  }
  void OnWriteDone(bool ok) override { on_written(ok); }
  void OnDone() override { on_done({StreamEnd::Cause::closed, ErrorKind::peer_lost, ""}); }

 protected:
  void start_call() override { StartRead(&reading_); }
  void start_read() override { StartRead(&reading_); }
  void start_write(std::string bytes) override {
    written_ = to_buffer(std::move(bytes));
    StartWrite(&written_);
  }
  void end_writes() override { finish_once(grpc::Status::OK); }
  void end_refusing(const Error& why) override {
    finish_once(grpc::Status(kRefusalCode, why.what(), std::to_string(int(why.kind()))));
  }
  void end_at_once() override {
    context_->TryCancel();
    finish_once(grpc::Status(grpc::StatusCode::CANCELLED, ""));
  }

 private:
  void finish_once(const grpc::Status& status) {
    if (std::exchange(finished_, true)) return;
    Finish(status);
  }

  grpc::GenericCallbackServerContext* context_;  // gRPC's, alive until OnDone has returned
  std::vector<std::string> names_;
  grpc::ByteBuffer reading_, written_;
  bool finished_ = false;
};

class ClientStream final : public LinkStream,
                           public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit ClientStream(std::shared_ptr<grpc::Channel> channel) : stub_(std::move(channel)) {}

  void OnReadDone(bool ok) override {
    if (ok) return with_bytes(reading_, [this](std::string_view bytes) { on_read(true, bytes); });
    on_read(false, {});
  }
  void OnWriteDone(bool ok) override { on_written(ok); }
  void OnDone(const grpc::Status& status) override { on_done(end_from(status)); }

 protected:
  void start_call() override {
    stub_.PrepareBidiStreamingCall(&context_, kMethod, grpc::StubOptions(), this);
    AddHold();  // for the operations that do not start in a reaction
    StartRead(&reading_);
    StartCall();
  }
  void start_read() override { StartRead(&reading_); }
  void start_write(std::string bytes) override {
    written_ = to_buffer(std::move(bytes));
    StartWrite(&written_);
  }
  void end_writes() override {
    StartWritesDone();
    release();
  }
  void end_refusing(const Error&) override { end_at_once(); }
  void end_at_once() override {
    context_.TryCancel();
    release();
  }

 private:
  void release() {
    if (!std::exchange(released_, true)) RemoveHold();
  }

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::ByteBuffer reading_, written_;
  bool released_ = false;
};

// Calls set(name, value) for what both ends have in common.
template <typename Set>
void common_settings(const TransportSettings& settings, Set set) {
  // Notices a dead connection that carries no stream; the heartbeats notice a dead stream, and sooner.
  const int keepalive_ms = std::max(1000, settings.patience_ms);
  set(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive_ms);
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive_ms);
  set(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  set(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // no bound
  set(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, int(wire::kMessageBytesMax + kLinkChecksumBytes));
}

class Listener final : public LinkListener, private grpc::CallbackGenericService {
 public:
  Listener(const Address& address, const TransportSettings& settings, Accept accept)
      : accept_(std::move(accept)) {
    const std::lock_guard lock(starting_);
    grpc::ServerBuilder builder;
    common_settings(settings, [&](const char* name, int value) { builder.AddChannelArgument(name, value); });
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 500);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);  // pings never end a connection
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);         // a port has one owner
    builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, std::max(1000, settings.patience_ms));
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 4);  // one is used
    // Whoever keeps a connection without a stream, though it answers pings, is no node.
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, std::max(1000, settings.patience_ms));
    int port = 0;
    builder.AddListeningPort(address.text(), credentials(settings), &port);
    builder.RegisterCallbackGenericService(this);
    server_ = builder.BuildAndStart();
    if (!server_ || port == 0)
      throw error(ErrorKind::network, "cannot listen on {}: {}", address.text(), why_not_bindable(address));
    port_ = uint16_t(port);
  }
  ~Listener() override { shutdown(0); }

  uint16_t port() const override { return port_; }
  void shutdown(int deadline_ms) override {
    if (!server_) return;
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(deadline_ms));
    server_->Wait();
    server_.reset();
  }

 private:
  static std::shared_ptr<grpc::ServerCredentials> credentials(const TransportSettings& settings) {
    if (!settings.credentials) return grpc::InsecureServerCredentials();
    grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    options.pem_root_certs = settings.credentials->ca_pem;
    options.pem_key_cert_pairs.push_back(
        {settings.credentials->key_pem, settings.credentials->certificate_pem});
    return grpc::SslServerCredentials(options);
  }

  void wait_for_start() { const std::lock_guard started(starting_); }

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override {
    if (context->method() != kMethod) return grpc::CallbackGenericService::CreateReactor(context);
    wait_for_start();
    const auto stream = std::make_shared<ServerStream>(context);
    auto owner = accept_(stream);
    const bool refused = owner == nullptr;
    if (refused) owner = std::make_shared<Nobody>();
    stream->start(std::move(owner));
    if (refused) stream->refuse(Error(ErrorKind::cancelled, "it is closing, or has too many links already"));
    return stream.get();  // keeps itself alive until it is done
  }

  struct Nobody : LinkStream::Owner {
    void received(std::string_view) override {}
    void received_damaged() override {}
    void ended(const StreamEnd&) override {}
  };

  std::mutex starting_;  // held by the constructor: streams that come at once wait until all is in place
  Accept accept_;
  std::unique_ptr<grpc::Server> server_;
  uint16_t port_ = 0;
};

}  // namespace

std::unique_ptr<LinkListener> listen(const Address& address, const TransportSettings& settings,
                                     LinkListener::Accept accept) {
  return std::make_unique<Listener>(address, settings, std::move(accept));
}

std::unique_ptr<LinkStream> dial(const std::string& node, const Address& address,
                                 const TransportSettings& settings) {
  grpc::ChannelArguments arguments;
  common_settings(settings, [&](const char* name, int value) { arguments.SetInt(name, value); });
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS,
                   connect_ms_max(settings.patience_ms));  // it is the time to connect as well
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // no connection is shared, so none is stale
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  auto credentials = grpc::InsecureChannelCredentials();
  if (settings.credentials) {
    arguments.SetSslTargetNameOverride(node);  // the certificate must be for the node, wherever it runs
    credentials = grpc::SslCredentials(
        {settings.credentials->ca_pem, settings.credentials->key_pem, settings.credentials->certificate_pem});
  }
  return std::make_unique<ClientStream>(
      grpc::CreateCustomChannel("dns:///" + address.text(), credentials, arguments));
}

void prepare_process() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);  // failing leaves what there was
  }
  // gRPC stays initialised until the process ends: its shutdown with the last channel waits up to 10 s for a
  // thread that watches a connection whose other end does not read.
  grpc_init();
  if (std::getenv("GRPC_VERBOSITY") == nullptr)
    gpr_set_log_verbosity(static_cast<gpr_log_severity>(GPR_LOG_SEVERITY_ERROR + 1));
  google::protobuf::SetLogHandler(nullptr);  // what it would say of bad bytes, decode() says
}

}  // namespace troupe::comm
