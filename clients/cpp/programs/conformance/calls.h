#ifndef LATENTSERVE_CONFORMANCE_CALLS_H_
#define LATENTSERVE_CONFORMANCE_CALLS_H_

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cases.h"
#include "latentserve/client.h"

namespace conformance {

// Reply of GenerativeService, or one message of a stream.
struct Part {
  std::optional<latentserve::Images> images;
  std::optional<latentserve::Tensor> latents;
  std::optional<latentserve::Tensor> log_variance;
  std::optional<latentserve::Tensor> squared_error;
  std::optional<std::uint64_t> seed;
  std::int64_t offset = 0;
  latentserve::ServedBy served_by;
  latentserve::Timings timings;
};

// Result of a successful call.
using CallResult = std::variant<std::vector<Part>, latentserve::ModelList, latentserve::Model,
                                std::vector<latentserve::ReloadOutcome>, latentserve::HealthStatus>;

// Trailing metadata of calls that did not use the client.
using Trailers = std::multimap<std::string, std::string>;

// Executes calls; holds one client per server, with and without retries.
class Caller {
 public:
  Caller(std::map<std::string, std::string> addresses, const Folder& folder)
      : addresses_(std::move(addresses)), folder_(folder) {}

  // Executes the call of a case. Throws latentserve::Error if the call fails.
  CallResult Call(const Case& test, Trailers* trailers);

 private:
  const latentserve::Client& ClientOf(const Case& test);

  std::map<std::string, std::string> addresses_;
  const Folder& folder_;
  std::mutex mutex_;
  std::map<std::pair<std::string, bool>, latentserve::Client> clients_;
};

// Executes a call that bypasses the client, to send a request that the client refuses or to check trailers.
// It uses the generated stub, or raw bytes as the request.
CallResult CallThroughStub(const latentserve::Client& client, const Folder& folder, const Case& test,
                           const latentserve::CallOptions& options, Trailers* trailers);

// Converts a reply of Sample or SampleStream.
Part PartOf(latentserve::SampleResult result, std::int64_t offset);

}  // namespace conformance

#endif  // LATENTSERVE_CONFORMANCE_CALLS_H_
