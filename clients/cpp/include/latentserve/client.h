#ifndef LATENTSERVE_CLIENT_H_
#define LATENTSERVE_CLIENT_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>
#include <vector>

#include "latentserve/cancellation.h"
#include "latentserve/error.h"
#include "latentserve/images.h"
#include "latentserve/models.h"
#include "latentserve/options.h"
#include "latentserve/requests.h"
#include "latentserve/stream.h"
#include "latentserve/tensor.h"

namespace latentserve {

using SampleStream = Stream<SampleChunk>;

// Health status of the server, a service or a model. Only WatchHealth returns kServiceUnknown.
enum class HealthStatus { kUnknown, kServing, kNotServing, kServiceUnknown };

// Name of the status in the protocol, for example "NOT_SERVING".
std::string HealthName(HealthStatus status);

using HealthWatch = Stream<HealthStatus>;

// Client of a latentserve server. Safe for concurrent use; reuse it for many calls. Streams may outlive it.
//
// Calls that fail with UNAVAILABLE, with CANCELLED by the server, or because the queue is full are retried up
// to three times within their deadline, by gRPC's retry policy and after the delay that the server requests.
// Methods throw only Error and std::bad_alloc.
class Client {
 public:
  // Client of the server at "HOST:PORT", or at "dns:///NAME:PORT" to balance calls over all addresses of the
  // name. It connects on the first call. Throws Error for invalid options.
  explicit Client(const std::string& address, Options options = {});
  ~Client();
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;

  // Encodes images to latents: the mean of q(z|x) or, with a seed, a sample from it.
  EncodeResult Encode(const EncodeRequest& request, const CallOptions& call = {}) const;

  // Decodes latents to images.
  ImagesResult Decode(const DecodeRequest& request, const CallOptions& call = {}) const;

  // Encodes images to their mean latents and decodes these.
  ReconstructResult Reconstruct(const ReconstructRequest& request, const CallOptions& call = {}) const;

  // Removes the noise from images.
  ImagesResult Denoise(const DenoiseRequest& request, const CallOptions& call = {}) const;

  // Samples images.
  SampleResult Sample(const SampleRequest& request, const CallOptions& call = {}) const;

  // Samples many images, in chunks. The images are those of Sample. After an error, resume with the seed of
  // the last chunk and its NextOffset().
  latentserve::SampleStream SampleStream(const SampleRequest& request, const CallOptions& call = {}) const;

  // Lists every version of every model, including refused ones.
  ModelList ListModels(const CallOptions& call = {}) const;

  // Describes one model: "NAME", "NAME:VERSION", or empty for the client's or the server's default.
  Model GetModel(const std::string& model = "", const CallOptions& call = {}) const;

  // Makes the server rescan its model folder for these names or, without names, for all models. The timeout
  // is 120 s, or Options::timeout if it is longer, unless the call sets its own.
  std::vector<ReloadOutcome> ReloadModels(const std::vector<std::string>& names = {},
                                          const CallOptions& call = {}) const;

  // Returns the health of the server (empty), or of a service or model by name. The call is never retried.
  // Throws an Error with NOT_FOUND if the server does not know the name.
  HealthStatus Health(const std::string& service = "", const CallOptions& call = {}) const;

  // Streams the current health and every change. It has no deadline unless the call sets one.
  HealthWatch WatchHealth(const std::string& service = "", const CallOptions& call = {}) const;

  // The connection, for use with the generated stubs.
  std::shared_ptr<grpc::Channel> channel() const;

 private:
  struct Connection;
  std::shared_ptr<Connection> connection_;
};

}  // namespace latentserve

#endif  // LATENTSERVE_CLIENT_H_
