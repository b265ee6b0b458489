#include "fake_server.h"

#include <chrono>

#include "google/rpc/status.pb.h"

namespace latentserve_test {
namespace {

template <typename Request, typename Reply>
grpc::Status Handle(const Handler<Request, Reply>& handler, grpc::ServerContext* context,
                    const Request* request, Reply* reply) {
  if (!handler) return {grpc::StatusCode::UNIMPLEMENTED, "the test has no handler"};
  return handler(*context, *request, *reply);
}

}  // namespace

FakeServer::~FakeServer() {
  // Cancel the calls that are still held at once.
  if (server_) server_->Shutdown(std::chrono::system_clock::now());
}

std::string FakeServer::Start(std::shared_ptr<grpc::ServerCredentials> credentials) {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", std::move(credentials), &port);
  builder.RegisterService(static_cast<v1::GenerativeService::Service*>(this));
  builder.RegisterService(static_cast<v1::ModelService::Service*>(this));
  builder.RegisterService(static_cast<health::Health::Service*>(this));
  server_ = builder.BuildAndStart();
  address_ = "127.0.0.1:" + std::to_string(port);
  return address_;
}

latentserve::Client FakeServer::Connect(latentserve::Options options) {
  if (!server_) Start();
  return latentserve::Client(address_, std::move(options));
}

grpc::Status FakeServer::Encode(grpc::ServerContext* c, const v1::EncodeRequest* q, v1::EncodeResponse* r) {
  return Handle(on_encode, c, q, r);
}
grpc::Status FakeServer::Decode(grpc::ServerContext* c, const v1::DecodeRequest* q, v1::DecodeResponse* r) {
  return Handle(on_decode, c, q, r);
}
grpc::Status FakeServer::Reconstruct(grpc::ServerContext* c, const v1::ReconstructRequest* q,
                                     v1::ReconstructResponse* r) {
  return Handle(on_reconstruct, c, q, r);
}
grpc::Status FakeServer::Sample(grpc::ServerContext* c, const v1::SampleRequest* q, v1::SampleResponse* r) {
  return Handle(on_sample, c, q, r);
}
grpc::Status FakeServer::SampleStream(grpc::ServerContext* c, const v1::SampleStreamRequest* q,
                                      grpc::ServerWriter<v1::SampleStreamResponse>* w) {
  return on_sample_stream(*c, *q, *w);
}
grpc::Status FakeServer::ListModels(grpc::ServerContext* c, const v1::ListModelsRequest* q,
                                    v1::ListModelsResponse* r) {
  return Handle(on_list_models, c, q, r);
}
grpc::Status FakeServer::ReloadModels(grpc::ServerContext* c, const v1::ReloadModelsRequest* q,
                                      v1::ReloadModelsResponse* r) {
  return Handle(on_reload_models, c, q, r);
}
grpc::Status FakeServer::Check(grpc::ServerContext* c, const health::HealthCheckRequest* q,
                               health::HealthCheckResponse* r) {
  return Handle(on_check, c, q, r);
}

grpc::Status Failure(grpc::StatusCode code, const std::string& message,
                     const std::vector<const google::protobuf::Message*>& details) {
  google::rpc::Status status;
  status.set_code(code);
  status.set_message(message);
  for (const auto* detail : details) status.add_details()->PackFrom(*detail);
  return {code, message, status.SerializeAsString()};
}

void SetPixel(std::uint8_t level, v1::Images* images) {
  v1::Tensor* tensor = images->mutable_tensor();
  tensor->set_data_type(v1::DATA_TYPE_UINT8);
  for (int k = 0; k < 4; ++k) tensor->add_shape(1);
  tensor->set_data(std::string(1, static_cast<char>(level)));
}

latentserve::Images OnePixel() { return {std::vector<std::uint8_t>{7}, {1, 1, 1, 1}}; }

std::optional<latentserve::Error> ErrorOf(const std::function<void()>& call) {
  try {
    call();
    return std::nullopt;
  } catch (const latentserve::Error& error) {
    return error;
  }
}

}  // namespace latentserve_test
