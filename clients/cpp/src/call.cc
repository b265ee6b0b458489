#include "call.h"

namespace latentserve {

void Prepare(const Options& options, const CallOptions& call,
             std::optional<std::chrono::milliseconds> timeout, grpc::ClientContext* context) {
  if (call.timeout) timeout = call.timeout;
  if (timeout) {
    if (timeout->count() <= 0) {
      throw Error::Invalid("timeout", std::to_string(timeout->count()) + " ms; expected a positive time");
    }
    context->set_deadline(std::chrono::system_clock::now() + *timeout);
  }
  context->set_wait_for_ready(options.wait_for_ready);
  if (!options.token.empty()) context->AddMetadata("authorization", "Bearer " + options.token);
  for (const auto& [key, value] : call.metadata) context->AddMetadata(key, value);
}

}  // namespace latentserve
