#include "tests/comm/raw_stream.hpp"

#include <chrono>

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "comm/link_checksum.hpp"
#include "comm/messages.hpp"

namespace troupe::comm::test {

namespace {

grpc::ByteBuffer buffer_of(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string text_of(const grpc::ByteBuffer& buffer) {
  grpc::Slice slice;
  if (!buffer.DumpToSingleSlice(&slice).ok()) return "";
  return {reinterpret_cast<const char*>(slice.begin()), slice.size()};
}

std::shared_ptr<grpc::Channel> channel_to(const std::string& address, const std::optional<RawTls>& tls) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (!tls) return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  arguments.SetSslTargetNameOverride(tls->node);
  const auto& files = tls->credentials;
  return grpc::CreateCustomChannel(
      address, grpc::SslCredentials({files.ca_pem, files.key_pem, files.certificate_pem}), arguments);
}

}  // namespace

std::vector<std::string> with_checksums(std::vector<std::string> messages) {
  for (size_t i = 0; i < messages.size(); ++i) append_checksum(messages[i], i);
  return messages;
}

RawAnswer talk_raw(const std::string& address, const std::vector<std::string>& messages,
                   const std::optional<RawTls>& tls, size_t answers) {
  return talk_bytes(address, with_checksums(messages), tls, answers);
}

RawAnswer talk_bytes(const std::string& address, const std::vector<std::string>& messages,
                     const std::optional<RawTls>& tls, size_t answers) {
  grpc::GenericStub stub(channel_to(address, tls));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  grpc::CompletionQueue queue;
  const auto stream = stub.PrepareCall(&context, "/troupe.wire.Link/Connect", &queue);
  const auto finished = [&] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  RawAnswer answer;
  uint64_t received = 0;
  stream->StartCall(nullptr);
  bool open = finished();
  for (const std::string& message : messages) {
    if (!open) break;
    stream->Write(buffer_of(message), nullptr);
    open = finished();
  }
  while (answer.messages.size() < answers) {
    grpc::ByteBuffer buffer;
    stream->Read(&buffer, nullptr);
    if (!finished()) break;
    const std::string bytes = text_of(buffer);
    const auto message = strip_checksum(bytes, received++);
    if (!message || !message->empty()) answer.messages.emplace_back(message.value_or("damaged"));
  }
  if (answer.messages.size() >= answers) context.TryCancel();
  grpc::Status status;
  stream->Finish(&status, nullptr);
  finished();
  answer.status = status.error_code();
  answer.text = status.error_message();
  return answer;
}

wire::Envelope raw_hello(const std::string& node) {
  wire::Envelope envelope;
  envelope.mutable_hello()->set_wire_version(wire::kWireVersion);
  envelope.mutable_hello()->set_node(node);
  envelope.mutable_hello()->set_incarnation(new_incarnation());
  envelope.mutable_hello()->set_cluster("test");
  return envelope;
}

}  // namespace troupe::comm::test
