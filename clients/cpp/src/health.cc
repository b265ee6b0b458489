#include "call.h"
#include "connection.h"

namespace latentserve {
namespace {

namespace wire = grpc::health::v1;

HealthStatus FromReply(wire::HealthCheckResponse reply) {
  switch (reply.status()) {
    case wire::HealthCheckResponse::SERVING:
      return HealthStatus::kServing;
    case wire::HealthCheckResponse::NOT_SERVING:
      return HealthStatus::kNotServing;
    case wire::HealthCheckResponse::SERVICE_UNKNOWN:
      return HealthStatus::kServiceUnknown;
    default:
      return HealthStatus::kUnknown;
  }
}

}  // namespace

std::string HealthName(HealthStatus status) {
  switch (status) {
    case HealthStatus::kServing:
      return "SERVING";
    case HealthStatus::kNotServing:
      return "NOT_SERVING";
    case HealthStatus::kServiceUnknown:
      return "SERVICE_UNKNOWN";
    default:
      return "UNKNOWN";
  }
}

HealthStatus Client::Health(const std::string& service, const CallOptions& call) const {
  wire::HealthCheckRequest message;
  message.set_service(service);
  grpc::ClientContext context;
  Prepare(connection_->options, call, connection_->options.timeout, &context);
  const CancellationScope scope(call.cancellation, &context);
  wire::HealthCheckResponse reply;
  const grpc::Status status = connection_->health->Check(&context, message, &reply);
  // NOT_FOUND of the health protocol has no message.
  if (!status.ok()) throw Error::FromStatus(status, "unknown service or model \"" + service + '"');
  return FromReply(reply);
}

HealthWatch Client::WatchHealth(const std::string& service, const CallOptions& call) const {
  wire::HealthCheckRequest message;
  message.set_service(service);
  using Source = CallSource<wire::HealthCheckResponse, HealthStatus, Connection>;
  auto source = std::make_unique<Source>(connection_, FromReply);
  Prepare(connection_->options, call, std::nullopt, source->context());
  source->Start(call.cancellation, connection_->health->Watch(source->context(), message));
  return HealthWatch(std::move(source));
}

}  // namespace latentserve
