// A server of gRPC's interoperability tests on the C++ implementation, to try our client against.
//
//     server --port=N [--tls_cert=FILE --tls_key=FILE]

#include <grpcpp/grpcpp.h>
#include <grpcpp/server_context.h>
#include <signal.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <thread>

#include "grpc/testing/test.grpc.pb.h"

// Exported by the library for its own tests, like the flag of a message that came compressed.
uint32_t grpc_call_test_only_get_message_flags(grpc_call* call);
const uint32_t kCameCompressed = 0x40000000u;

namespace grpc {
namespace testing {
// A name that the library has made a friend, for this purpose.
class InteropServerContextInspector {
 public:
  explicit InteropServerContextInspector(const ServerContextBase& context) : context_(context) {}
  bool compressed() const {
    return grpc_call_test_only_get_message_flags(context_.call_.call) & kCameCompressed;
  }

 private:
  const ServerContextBase& context_;
};
}  // namespace testing
}  // namespace grpc

using namespace grpc::testing;
using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

namespace {

void EchoMetadata(ServerContext* context) {
  const auto& sent = context->client_metadata();
  auto initial = sent.find("x-grpc-test-echo-initial");
  if (initial != sent.end()) {
    context->AddInitialMetadata("x-grpc-test-echo-initial", std::string(initial->second.data(), initial->second.size()));
  }
  auto trailing = sent.find("x-grpc-test-echo-trailing-bin");
  if (trailing != sent.end()) {
    context->AddTrailingMetadata("x-grpc-test-echo-trailing-bin",
                                 std::string(trailing->second.data(), trailing->second.size()));
  }
}

bool CameAsAnnounced(ServerContext* context, bool announced, const BoolValue& compressed) {
  return !announced || compressed.value() == InteropServerContextInspector(*context).compressed();
}

Status NotAsAnnounced() { return Status(StatusCode::INVALID_ARGUMENT, "the message was not compressed as announced"); }

grpc::WriteOptions Options(bool asked, const BoolValue& compressed) {
  grpc::WriteOptions options;
  if (!(asked && compressed.value())) options.set_no_compression();
  return options;
}

class Test final : public TestService::Service {
  Status EmptyCall(ServerContext* context, const Empty*, Empty*) override {
    EchoMetadata(context);
    return Status::OK;
  }

  Status UnaryCall(ServerContext* context, const SimpleRequest* request, SimpleResponse* response) override {
    EchoMetadata(context);
    if (!CameAsAnnounced(context, request->has_expect_compressed(), request->expect_compressed())) {
      return NotAsAnnounced();
    }
    if (request->has_response_status() && request->response_status().code() != 0) {
      return Status(static_cast<StatusCode>(request->response_status().code()), request->response_status().message());
    }
    if (request->response_compressed().value()) context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
    response->mutable_payload()->set_body(std::string(request->response_size(), '\0'));
    return Status::OK;
  }

  Status CacheableUnaryCall(ServerContext* context, const SimpleRequest* request, SimpleResponse* response) override {
    context->AddInitialMetadata("cache-control", "max-age=60, public");
    return UnaryCall(context, request, response);
  }

  Status Answer(ServerContext* context, const StreamingOutputCallRequest& request,
                grpc::internal::WriterInterface<StreamingOutputCallResponse>* writer) {
    for (const auto& wanted : request.response_parameters()) {
      if (context->IsCancelled()) return Status::CANCELLED;
      std::this_thread::sleep_for(std::chrono::microseconds(wanted.interval_us()));
      StreamingOutputCallResponse response;
      response.mutable_payload()->set_body(std::string(wanted.size(), '\0'));
      if (!writer->Write(response, Options(wanted.has_compressed(), wanted.compressed()))) return Status::CANCELLED;
    }
    if (request.has_response_status() && request.response_status().code() != 0) {
      return Status(static_cast<StatusCode>(request.response_status().code()), request.response_status().message());
    }
    return Status::OK;
  }

  static void CompressStream(ServerContext* context, const StreamingOutputCallRequest& request) {
    for (const auto& wanted : request.response_parameters()) {
      if (wanted.compressed().value()) context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
    }
  }

  Status StreamingOutputCall(ServerContext* context, const StreamingOutputCallRequest* request,
                             grpc::ServerWriter<StreamingOutputCallResponse>* writer) override {
    EchoMetadata(context);
    CompressStream(context, *request);
    return Answer(context, *request, writer);
  }

  Status StreamingInputCall(ServerContext* context, grpc::ServerReader<StreamingInputCallRequest>* reader,
                            StreamingInputCallResponse* response) override {
    EchoMetadata(context);
    StreamingInputCallRequest request;
    int64_t total = 0;
    while (reader->Read(&request)) {
      if (!CameAsAnnounced(context, request.has_expect_compressed(), request.expect_compressed())) {
        return NotAsAnnounced();
      }
      total += request.payload().body().size();
    }
    response->set_aggregated_payload_size(total);
    return Status::OK;
  }

  Status FullDuplexCall(
      ServerContext* context,
      grpc::ServerReaderWriter<StreamingOutputCallResponse, StreamingOutputCallRequest>* stream) override {
    EchoMetadata(context);
    StreamingOutputCallRequest request;
    while (stream->Read(&request)) {
      Status status = Answer(context, request, stream);
      if (!status.ok()) return status;
    }
    return Status::OK;
  }

  Status HalfDuplexCall(
      ServerContext* context,
      grpc::ServerReaderWriter<StreamingOutputCallResponse, StreamingOutputCallRequest>* stream) override {
    EchoMetadata(context);
    std::vector<StreamingOutputCallRequest> requests;
    StreamingOutputCallRequest request;
    while (stream->Read(&request)) requests.push_back(request);
    for (const auto& each : requests) {
      Status status = Answer(context, each, stream);
      if (!status.ok()) return status;
    }
    return Status::OK;
  }
};

std::string Contents(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    std::cerr << "can't read " << path << std::endl;
    exit(2);
  }
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
    if (flag.compare(0, 2, "--") != 0 || equals == std::string::npos) {
      std::cerr << "not a flag: " << flag << std::endl;
      return 2;
    }
    flags[flag.substr(2, equals - 2)] = flag.substr(equals + 1);
  }
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (flags.count("tls_cert")) {
    grpc::SslServerCredentialsOptions options;
    options.pem_key_cert_pairs.push_back({Contents(flags["tls_key"]), Contents(flags["tls_cert"])});
    credentials = grpc::SslServerCredentials(options);
  }
  Test test;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + flags["port"], credentials, &port);
  builder.RegisterService(&test);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || port == 0) {
    std::cerr << "can't listen on port " << flags["port"] << std::endl;
    return 1;
  }
  std::cout << "listening on 127.0.0.1:" << port << std::endl;
  server->Wait();
}
