// A client of gRPC's interoperability tests on the C++ implementation, to try our server with.
//
//     client --server_host=H --server_port=N [--server_host_override=NAME] --test_case=CASE [--tls_ca=FILE]
//
// Exits 0 where the case passes, else says on stderr what was wrong and exits 1.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "grpc/testing/test.grpc.pb.h"

// Exported by the library for its own tests, like the flag of a message that came compressed.
uint32_t grpc_call_test_only_get_message_flags(grpc_call* call);
const uint32_t kCameCompressed = 0x40000000u;

namespace grpc {
namespace testing {
// A name that the library has made a friend, for this purpose.
class InteropClientContextInspector {
 public:
  explicit InteropClientContextInspector(const ClientContext& context) : context_(context) {}
  bool compressed() const {
    return grpc_call_test_only_get_message_flags(context_.call_) & kCameCompressed;
  }

 private:
  const ClientContext& context_;
};
}  // namespace testing
}  // namespace grpc

using namespace grpc::testing;
using grpc::ClientContext;
using grpc::Status;
using grpc::StatusCode;

namespace {

const int kLargeRequest = 271828;
const int kLargeResponse = 314159;
const std::vector<int> kRequestSizes = {27182, 8, 1828, 45904};
const std::vector<int> kResponseSizes = {31415, 9, 2653, 58979};

void Check(bool holds, const std::string& what) {
  if (!holds) {
    std::cerr << "failed: " << what << std::endl;
    // No unwinding through calls in flight.
    _exit(1);
  }
}

void CheckStatus(const Status& status, StatusCode wanted) {
  Check(status.error_code() == wanted, "status " + std::to_string(status.error_code()) + " (" + status.error_message() +
                                           ") instead of " + std::to_string(wanted));
}

void SetDeadline(ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
}

SimpleRequest Large() {
  SimpleRequest request;
  request.set_response_size(kLargeResponse);
  request.mutable_payload()->set_body(std::string(kLargeRequest, '\0'));
  return request;
}

void CheckBody(const Payload& payload, size_t size) {
  Check(payload.body() == std::string(size, '\0'),
        "a payload of " + std::to_string(payload.body().size()) + " bytes instead of " + std::to_string(size) + " zeroes");
}

using Stub = TestService::Stub;

void EmptyUnary(Stub* stub) {
  ClientContext context;
  SetDeadline(&context);
  Empty response;
  CheckStatus(stub->EmptyCall(&context, Empty(), &response), StatusCode::OK);
  Check(response.ByteSizeLong() == 0, "an answer that isn't empty");
}

void LargeUnary(Stub* stub) {
  ClientContext context;
  SetDeadline(&context);
  SimpleResponse response;
  CheckStatus(stub->UnaryCall(&context, Large(), &response), StatusCode::OK);
  CheckBody(response.payload(), kLargeResponse);
}

void CacheableUnary(Stub* stub) {
  ClientContext context;
  SetDeadline(&context);
  context.AddMetadata("x-user-ip", "1.2.3.4");
  SimpleRequest request;
  request.mutable_payload()->set_body(std::to_string(std::chrono::steady_clock::now().time_since_epoch().count()));
  SimpleResponse response;
  CheckStatus(stub->CacheableUnaryCall(&context, request, &response), StatusCode::OK);
  // Whether the answers are the same depends on a cache in between, which there is not.
}

void ClientCompressedUnary(Stub* stub) {
  {
    // The probe: announced as compressed, and sent as it is.
    ClientContext context;
    SetDeadline(&context);
    context.set_compression_algorithm(GRPC_COMPRESS_NONE);
    SimpleRequest request = Large();
    request.mutable_expect_compressed()->set_value(true);
    SimpleResponse response;
    CheckStatus(stub->UnaryCall(&context, request, &response), StatusCode::INVALID_ARGUMENT);
  }
  for (bool compressed : {true, false}) {
    ClientContext context;
    SetDeadline(&context);
    context.set_compression_algorithm(compressed ? GRPC_COMPRESS_GZIP : GRPC_COMPRESS_NONE);
    SimpleRequest request = Large();
    request.mutable_expect_compressed()->set_value(compressed);
    SimpleResponse response;
    CheckStatus(stub->UnaryCall(&context, request, &response), StatusCode::OK);
    CheckBody(response.payload(), kLargeResponse);
  }
}

void ServerCompressedUnary(Stub* stub) {
  for (bool compressed : {true, false}) {
    ClientContext context;
    SetDeadline(&context);
    SimpleRequest request = Large();
    request.mutable_response_compressed()->set_value(compressed);
    SimpleResponse response;
    CheckStatus(stub->UnaryCall(&context, request, &response), StatusCode::OK);
    Check(InteropClientContextInspector(context).compressed() == compressed,
          compressed ? "an answer that isn't compressed" : "an answer that is compressed");
    CheckBody(response.payload(), kLargeResponse);
  }
}

void ClientStreaming(Stub* stub) {
  ClientContext context;
  SetDeadline(&context);
  StreamingInputCallResponse response;
  auto writer = stub->StreamingInputCall(&context, &response);
  int total = 0;
  for (int size : kRequestSizes) {
    StreamingInputCallRequest request;
    request.mutable_payload()->set_body(std::string(size, '\0'));
    Check(writer->Write(request), "a stream that ended early");
    total += size;
  }
  Check(writer->WritesDone(), "a stream that ended early");
  CheckStatus(writer->Finish(), StatusCode::OK);
  Check(response.aggregated_payload_size() == total, "a wrong total");
}

void ClientCompressedStreaming(Stub* stub) {
  {
    ClientContext context;
    SetDeadline(&context);
    context.set_compression_algorithm(GRPC_COMPRESS_NONE);
    StreamingInputCallResponse response;
    auto writer = stub->StreamingInputCall(&context, &response);
    StreamingInputCallRequest request;
    request.mutable_expect_compressed()->set_value(true);
    request.mutable_payload()->set_body(std::string(27182, '\0'));
    writer->Write(request);
    writer->WritesDone();
    CheckStatus(writer->Finish(), StatusCode::INVALID_ARGUMENT);
  }
  ClientContext context;
  SetDeadline(&context);
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  StreamingInputCallResponse response;
  auto writer = stub->StreamingInputCall(&context, &response);
  StreamingInputCallRequest request;
  request.mutable_expect_compressed()->set_value(true);
  request.mutable_payload()->set_body(std::string(27182, '\0'));
  Check(writer->Write(request), "a stream that ended early");
  request.mutable_expect_compressed()->set_value(false);
  request.mutable_payload()->set_body(std::string(45904, '\0'));
  grpc::WriteOptions plain;
  plain.set_no_compression();
  Check(writer->Write(request, plain), "a stream that ended early");
  writer->WritesDone();
  CheckStatus(writer->Finish(), StatusCode::OK);
  Check(response.aggregated_payload_size() == 73086, "a wrong total");
}

void ServerStreaming(Stub* stub) {
  ClientContext context;
  SetDeadline(&context);
  StreamingOutputCallRequest request;
  for (int size : kResponseSizes) request.add_response_parameters()->set_size(size);
  auto reader = stub->StreamingOutputCall(&context, request);
  StreamingOutputCallResponse response;
  size_t received = 0;
  while (reader->Read(&response)) {
    Check(received < kResponseSizes.size(), "too many messages");
    CheckBody(response.payload(), kResponseSizes[received++]);
  }
  Check(received == kResponseSizes.size(), "too few messages");
  CheckStatus(reader->Finish(), StatusCode::OK);
}

void ServerCompressedStreaming(Stub* stub) {
  ClientContext context;
  SetDeadline(&context);
  StreamingOutputCallRequest request;
  const std::vector<std::pair<int, bool>> wanted = {{31415, true}, {92653, false}};
  for (const auto& each : wanted) {
    auto* parameters = request.add_response_parameters();
    parameters->set_size(each.first);
    parameters->mutable_compressed()->set_value(each.second);
  }
  auto reader = stub->StreamingOutputCall(&context, request);
  StreamingOutputCallResponse response;
  for (const auto& each : wanted) {
    Check(reader->Read(&response), "too few messages");
    Check(InteropClientContextInspector(context).compressed() == each.second, "a message not compressed as asked");
    CheckBody(response.payload(), each.first);
  }
  Check(!reader->Read(&response), "too many messages");
  CheckStatus(reader->Finish(), StatusCode::OK);
}

void PingPong(Stub* stub) {
  ClientContext context;
  SetDeadline(&context);
  auto stream = stub->FullDuplexCall(&context);
  for (size_t i = 0; i < kRequestSizes.size(); i++) {
    StreamingOutputCallRequest request;
    request.add_response_parameters()->set_size(kResponseSizes[i]);
    request.mutable_payload()->set_body(std::string(kRequestSizes[i], '\0'));
    Check(stream->Write(request), "a stream that ended early");
    StreamingOutputCallResponse response;
    Check(stream->Read(&response), "no answer");
    CheckBody(response.payload(), kResponseSizes[i]);
  }
  stream->WritesDone();
  StreamingOutputCallResponse response;
  Check(!stream->Read(&response), "too many messages");
  CheckStatus(stream->Finish(), StatusCode::OK);
}

void EmptyStream(Stub* stub) {
  ClientContext context;
  SetDeadline(&context);
  auto stream = stub->FullDuplexCall(&context);
  stream->WritesDone();
  StreamingOutputCallResponse response;
  Check(!stream->Read(&response), "too many messages");
  CheckStatus(stream->Finish(), StatusCode::OK);
}

void CheckEchoes(const ClientContext& context) {
  const auto& initial = context.GetServerInitialMetadata();
  auto first = initial.find("x-grpc-test-echo-initial");
  Check(first != initial.end() && first->second == "test_initial_metadata_value", "no echo in the headers");
  const auto& trailing = context.GetServerTrailingMetadata();
  auto last = trailing.find("x-grpc-test-echo-trailing-bin");
  Check(last != trailing.end() && last->second == grpc::string_ref("\x0a\x0b\x0a\x0b\x0a\x0b", 6), "no echo in the trailers");
}

void CustomMetadata(Stub* stub) {
  const std::string binary("\x0a\x0b\x0a\x0b\x0a\x0b", 6);
  {
    ClientContext context;
    SetDeadline(&context);
    context.AddMetadata("x-grpc-test-echo-initial", "test_initial_metadata_value");
    context.AddMetadata("x-grpc-test-echo-trailing-bin", binary);
    SimpleResponse response;
    CheckStatus(stub->UnaryCall(&context, Large(), &response), StatusCode::OK);
    CheckEchoes(context);
  }
  ClientContext context;
  SetDeadline(&context);
  context.AddMetadata("x-grpc-test-echo-initial", "test_initial_metadata_value");
  context.AddMetadata("x-grpc-test-echo-trailing-bin", binary);
  auto stream = stub->FullDuplexCall(&context);
  StreamingOutputCallRequest request;
  request.add_response_parameters()->set_size(kLargeResponse);
  request.mutable_payload()->set_body(std::string(kLargeRequest, '\0'));
  Check(stream->Write(request), "a stream that ended early");
  stream->WritesDone();
  StreamingOutputCallResponse response;
  Check(stream->Read(&response), "no answer");
  CheckBody(response.payload(), kLargeResponse);
  Check(!stream->Read(&response), "too many messages");
  CheckStatus(stream->Finish(), StatusCode::OK);
  CheckEchoes(context);
}

void StatusCodeAndMessage(Stub* stub) {
  const std::string message = "test status message";
  {
    ClientContext context;
    SetDeadline(&context);
    SimpleRequest request;
    request.mutable_response_status()->set_code(StatusCode::UNKNOWN);
    request.mutable_response_status()->set_message(message);
    SimpleResponse response;
    Status status = stub->UnaryCall(&context, request, &response);
    CheckStatus(status, StatusCode::UNKNOWN);
    Check(status.error_message() == message, "the message " + status.error_message());
  }
  ClientContext context;
  SetDeadline(&context);
  auto stream = stub->FullDuplexCall(&context);
  StreamingOutputCallRequest request;
  request.mutable_response_status()->set_code(StatusCode::UNKNOWN);
  request.mutable_response_status()->set_message(message);
  stream->Write(request);
  stream->WritesDone();
  StreamingOutputCallResponse response;
  while (stream->Read(&response)) {
  }
  Status status = stream->Finish();
  CheckStatus(status, StatusCode::UNKNOWN);
  Check(status.error_message() == message, "the message " + status.error_message());
}

void SpecialStatusMessage(Stub* stub) {
  const std::string message = "\t\ntest with whitespace\r\nand Unicode BMP \xe2\x98\xba and non-BMP \xf0\x9f\x98\x88\t\n";
  ClientContext context;
  SetDeadline(&context);
  SimpleRequest request;
  request.mutable_response_status()->set_code(StatusCode::UNKNOWN);
  request.mutable_response_status()->set_message(message);
  SimpleResponse response;
  Status status = stub->UnaryCall(&context, request, &response);
  CheckStatus(status, StatusCode::UNKNOWN);
  Check(status.error_message() == message, "the message " + status.error_message());
}

void UnimplementedMethod(Stub* stub) {
  ClientContext context;
  SetDeadline(&context);
  Empty response;
  CheckStatus(stub->UnimplementedCall(&context, Empty(), &response), StatusCode::UNIMPLEMENTED);
}

void UnimplementedServiceCase(const std::shared_ptr<grpc::Channel>& channel) {
  ClientContext context;
  SetDeadline(&context);
  Empty response;
  CheckStatus(UnimplementedService::NewStub(channel)->UnimplementedCall(&context, Empty(), &response),
              StatusCode::UNIMPLEMENTED);
}

void CancelAfterBegin(Stub* stub) {
  ClientContext context;
  SetDeadline(&context);
  StreamingInputCallResponse response;
  auto writer = stub->StreamingInputCall(&context, &response);
  context.TryCancel();
  CheckStatus(writer->Finish(), StatusCode::CANCELLED);
}

void CancelAfterFirstResponse(Stub* stub) {
  ClientContext context;
  SetDeadline(&context);
  auto stream = stub->FullDuplexCall(&context);
  StreamingOutputCallRequest request;
  request.add_response_parameters()->set_size(31415);
  request.mutable_payload()->set_body(std::string(27182, '\0'));
  Check(stream->Write(request), "a stream that ended early");
  StreamingOutputCallResponse response;
  Check(stream->Read(&response), "no answer");
  context.TryCancel();
  CheckStatus(stream->Finish(), StatusCode::CANCELLED);
}

void TimeoutOnSleepingServer(Stub* stub) {
  ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(1));
  auto stream = stub->FullDuplexCall(&context);
  StreamingOutputCallRequest request;
  request.mutable_payload()->set_body(std::string(27182, '\0'));
  stream->Write(request);
  CheckStatus(stream->Finish(), StatusCode::DEADLINE_EXCEEDED);
}

std::string Contents(const std::string& path) {
  std::ifstream file(path);
  Check(bool(file), "can't read " + path);
  std::stringstream contents;
  contents << file.rdbuf();
  return contents.str();
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> flags;
  for (int i = 1; i < argc; i++) {
    std::string flag = argv[i];
    auto equals = flag.find('=');
    Check(flag.compare(0, 2, "--") == 0 && equals != std::string::npos, "not a flag: " + flag);
    flags[flag.substr(2, equals - 2)] = flag.substr(equals + 1);
  }
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (flags.count("tls_ca")) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = Contents(flags["tls_ca"]);
    credentials = grpc::SslCredentials(options);
  }
  const std::string address = flags["server_host"] + ":" + flags["server_port"];
  grpc::ChannelArguments arguments;
  // No channel of an earlier case is used again.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (flags.count("server_host_override")) arguments.SetSslTargetNameOverride(flags["server_host_override"]);
  auto connect = [&] { return grpc::CreateCustomChannel(address, credentials, arguments); };
  auto channel = connect();
  auto stub = TestService::NewStub(channel);

  const std::map<std::string, std::function<void()>> cases = {
      {"empty_unary", [&] { EmptyUnary(stub.get()); }},
      {"cacheable_unary", [&] { CacheableUnary(stub.get()); }},
      {"large_unary", [&] { LargeUnary(stub.get()); }},
      {"client_compressed_unary", [&] { ClientCompressedUnary(stub.get()); }},
      {"server_compressed_unary", [&] { ServerCompressedUnary(stub.get()); }},
      {"client_streaming", [&] { ClientStreaming(stub.get()); }},
      {"client_compressed_streaming", [&] { ClientCompressedStreaming(stub.get()); }},
      {"server_streaming", [&] { ServerStreaming(stub.get()); }},
      {"server_compressed_streaming", [&] { ServerCompressedStreaming(stub.get()); }},
      {"ping_pong", [&] { PingPong(stub.get()); }},
      {"empty_stream", [&] { EmptyStream(stub.get()); }},
      {"status_code_and_message", [&] { StatusCodeAndMessage(stub.get()); }},
      {"special_status_message", [&] { SpecialStatusMessage(stub.get()); }},
      {"unimplemented_method", [&] { UnimplementedMethod(stub.get()); }},
      {"unimplemented_service", [&] { UnimplementedServiceCase(channel); }},
      {"cancel_after_begin", [&] { CancelAfterBegin(stub.get()); }},
      {"cancel_after_first_response", [&] { CancelAfterFirstResponse(stub.get()); }},
      {"timeout_on_sleeping_server", [&] { TimeoutOnSleepingServer(stub.get()); }},
      {"custom_metadata", [&] { CustomMetadata(stub.get()); }},
      {"rpc_soak",
       [&] {
         for (int i = 0; i < 10; i++) LargeUnary(stub.get());
       }},
      {"channel_soak",
       [&] {
         for (int i = 0; i < 10; i++) {
           auto fresh = TestService::NewStub(connect());
           LargeUnary(fresh.get());
         }
       }},
  };
  auto found = cases.find(flags["test_case"]);
  Check(found != cases.end(), "no such case: " + flags["test_case"]);
  found->second();
}
