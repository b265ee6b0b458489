#ifndef LATENTSERVE_SRC_CONNECTION_H_
#define LATENTSERVE_SRC_CONNECTION_H_

#include <memory>
#include <string>

#include "grpc/health/v1/health.grpc.pb.h"
#include "latentserve/client.h"
#include "latentserve/v1/generative_service.grpc.pb.h"
#include "latentserve/v1/model_service.grpc.pb.h"

namespace latentserve {

// Connection shared by a client and its streams.
struct Client::Connection {
  Options options;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::GenerativeService::Stub> generative;
  std::unique_ptr<v1::ModelService::Stub> models;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;

  // Parses the model of a request: "NAME", "NAME:VERSION", or empty for the client's.
  void SetModel(const std::string& model, v1::ModelRef* message) const;
};

// Parses "NAME" or "NAME:VERSION"; "" means the server's default model. Throws Error for other values.
void SetModelRef(const std::string& model, v1::ModelRef* message);

}  // namespace latentserve

#endif  // LATENTSERVE_SRC_CONNECTION_H_
