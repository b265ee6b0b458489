#ifndef LATENTSERVE_TEST_FAKE_SERVER_H_
#define LATENTSERVE_TEST_FAKE_SERVER_H_

#include <google/protobuf/message.h>
#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "latentserve/client.h"
#include "latentserve/v1/generative_service.grpc.pb.h"
#include "latentserve/v1/model_service.grpc.pb.h"

namespace latentserve_test {

namespace v1 = latentserve::v1;
namespace health = grpc::health::v1;

template <typename Request, typename Reply>
using Handler = std::function<grpc::Status(grpc::ServerContext&, const Request&, Reply&)>;

// Fake server in this process that runs the handlers of a test; an RPC without handler fails with
// UNIMPLEMENTED.
class FakeServer final : v1::GenerativeService::Service, v1::ModelService::Service, health::Health::Service {
 public:
  FakeServer() = default;
  ~FakeServer() override;

  Handler<v1::EncodeRequest, v1::EncodeResponse> on_encode;
  Handler<v1::DecodeRequest, v1::DecodeResponse> on_decode;
  Handler<v1::ReconstructRequest, v1::ReconstructResponse> on_reconstruct;
  Handler<v1::SampleRequest, v1::SampleResponse> on_sample;
  Handler<v1::ListModelsRequest, v1::ListModelsResponse> on_list_models;
  Handler<v1::ReloadModelsRequest, v1::ReloadModelsResponse> on_reload_models;
  Handler<health::HealthCheckRequest, health::HealthCheckResponse> on_check;
  std::function<grpc::Status(grpc::ServerContext&, const v1::SampleStreamRequest&,
                             grpc::ServerWriter<v1::SampleStreamResponse>&)>
      on_sample_stream;

  // Starts on a free port and returns the address.
  std::string Start(std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials());

  // Returns a client; starts the server if necessary.
  latentserve::Client Connect(latentserve::Options options = {});

 private:
  grpc::Status Encode(grpc::ServerContext*, const v1::EncodeRequest*, v1::EncodeResponse*) override;
  grpc::Status Decode(grpc::ServerContext*, const v1::DecodeRequest*, v1::DecodeResponse*) override;
  grpc::Status Reconstruct(grpc::ServerContext*, const v1::ReconstructRequest*,
                           v1::ReconstructResponse*) override;
  grpc::Status Sample(grpc::ServerContext*, const v1::SampleRequest*, v1::SampleResponse*) override;
  grpc::Status SampleStream(grpc::ServerContext*, const v1::SampleStreamRequest*,
                            grpc::ServerWriter<v1::SampleStreamResponse>*) override;
  grpc::Status ListModels(grpc::ServerContext*, const v1::ListModelsRequest*,
                          v1::ListModelsResponse*) override;
  grpc::Status ReloadModels(grpc::ServerContext*, const v1::ReloadModelsRequest*,
                            v1::ReloadModelsResponse*) override;
  grpc::Status Check(grpc::ServerContext*, const health::HealthCheckRequest*,
                     health::HealthCheckResponse*) override;

  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

// Returns a status with details, as the server sends it.
grpc::Status Failure(grpc::StatusCode code, const std::string& message,
                     const std::vector<const google::protobuf::Message*>& details);

// Returns the message of one pixel, as UINT8.
void SetPixel(std::uint8_t level, v1::Images* images);

// Returns one pixel for requests.
latentserve::Images OnePixel();

// Returns the error of a call; nullopt if it succeeds.
std::optional<latentserve::Error> ErrorOf(const std::function<void()>& call);

}  // namespace latentserve_test

#endif  // LATENTSERVE_TEST_FAKE_SERVER_H_
