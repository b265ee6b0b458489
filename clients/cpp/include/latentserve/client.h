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

// The health of the server, a service or a model. kServiceUnknown comes from WatchHealth alone.
enum class HealthStatus { kUnknown, kServing, kNotServing, kServiceUnknown };

// The status as the protocol spells it, for example "NOT_SERVING".
std::string HealthName(HealthStatus status);

using HealthWatch = Stream<HealthStatus>;

// Calls a latentserve server. Safe for concurrent use, and meant to be kept for many calls. Streams may
// outlive it.
//
// Calls that fail with UNAVAILABLE, with CANCELLED by the server, or with a full queue are tried again up to
// three times within their deadline, as gRPC's retry policy and the server's advice say. Every method throws
// Error, and nothing else but std::bad_alloc.
class Client {
 public:
  // Of the server at "HOST:PORT", or at "dns:///NAME:PORT" to spread the calls over all addresses of the
  // name. Connects in the first call. Throws Error for options that cannot be.
  explicit Client(const std::string& address, Options options = {});
  ~Client();
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;

  // Maps images to latents: the mean of q(z|x), or a draw from it.
  EncodeResult Encode(const EncodeRequest& request, const CallOptions& call = {}) const;

  // Maps latents to images.
  ImagesResult Decode(const DecodeRequest& request, const CallOptions& call = {}) const;

  // Encodes images to the mean latent and decodes it.
  ReconstructResult Reconstruct(const ReconstructRequest& request, const CallOptions& call = {}) const;

  // Removes the noise from images.
  ImagesResult Denoise(const DenoiseRequest& request, const CallOptions& call = {}) const;

  // Draws images from the model.
  SampleResult Sample(const SampleRequest& request, const CallOptions& call = {}) const;

  // Draws many images, in chunks; they are the same that Sample gives. After a break, go on with the seed of
  // the last chunk and its NextOffset().
  latentserve::SampleStream SampleStream(const SampleRequest& request, const CallOptions& call = {}) const;

  // Every version of every model, the refused ones too.
  ModelList ListModels(const CallOptions& call = {}) const;

  // One model: "NAME", "NAME:VERSION", or empty for the client's or the server's default.
  Model GetModel(const std::string& model = "", const CallOptions& call = {}) const;

  // Has the server look at its model folder again, for these names or, without any, for all. Has 120 s, or
  // Options::timeout where that is more, unless the call sets its own.
  std::vector<ReloadOutcome> ReloadModels(const std::vector<std::string>& names = {},
                                          const CallOptions& call = {}) const;

  // The health of the server (empty), or of a model by its name. Never tried again. An Error with NOT_FOUND
  // for what the server does not know.
  HealthStatus Health(const std::string& service = "", const CallOptions& call = {}) const;

  // The health now and after every change. Without a deadline unless the call sets one.
  HealthWatch WatchHealth(const std::string& service = "", const CallOptions& call = {}) const;

  // The connection, for the generated stubs.
  std::shared_ptr<grpc::Channel> channel() const;

 private:
  struct Connection;
  std::shared_ptr<Connection> connection_;
};

}  // namespace latentserve

#endif  // LATENTSERVE_CLIENT_H_
