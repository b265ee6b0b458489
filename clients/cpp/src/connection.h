#ifndef LATENTSERVE_SRC_CONNECTION_H_
#define LATENTSERVE_SRC_CONNECTION_H_

#include <memory>
#include <string>

#include "grpc/health/v1/health.grpc.pb.h"
#include "latentserve/client.h"
#include "latentserve/v1/generative_service.grpc.pb.h"
#include "latentserve/v1/model_service.grpc.pb.h"

namespace latentserve {

// What a client and its streams hold together.
struct Client::Connection {
  Options options;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::GenerativeService::Stub> generative;
  std::unique_ptr<v1::ModelService::Stub> models;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;

  // The message of a request's model: "NAME", "NAME:VERSION", or empty for the client's.
  void SetModel(const std::string& model, v1::ModelRef* message) const;
};

// The message of "NAME", "NAME:VERSION" or "", the server's default model. Throws Error for anything else.
void SetModelRef(const std::string& model, v1::ModelRef* message);

}  // namespace latentserve

#endif  // LATENTSERVE_SRC_CONNECTION_H_
