#include "call.h"
#include "connection.h"
#include "convert.h"

namespace latentserve {

using Generative = v1::GenerativeService::Stub;

EncodeResult Client::Encode(const EncodeRequest& request, const CallOptions& call) const {
  v1::EncodeRequest message;
  connection_->SetModel(request.model, message.mutable_model());
  ToMessage(request.images, message.mutable_images());
  if (request.seed) message.set_seed(*request.seed);
  const Options& options = connection_->options;
  v1::EncodeResponse reply =
      Unary(options, call, options.timeout, connection_->generative.get(), &Generative::Encode, message);
  EncodeResult result;
  result.latents = FromMessage(reply.mutable_latents(), 2);
  if (reply.has_log_variance()) result.log_variance = FromMessage(reply.mutable_log_variance(), 2);
  if (reply.has_seed()) result.seed = reply.seed();
  result.served_by = FromMessage(reply.served_by());
  result.timings = FromMessage(reply.timings());
  return result;
}

ImagesResult Client::Decode(const DecodeRequest& request, const CallOptions& call) const {
  v1::DecodeRequest message;
  connection_->SetModel(request.model, message.mutable_model());
  ToMessage(request.latents, "latents", 2, message.mutable_latents());
  message.set_output_format(ToMessage(request.format));
  const Options& options = connection_->options;
  v1::DecodeResponse reply =
      Unary(options, call, options.timeout, connection_->generative.get(), &Generative::Decode, message);
  ImagesResult result;
  FillImages(&reply, &result);
  return result;
}

ReconstructResult Client::Reconstruct(const ReconstructRequest& request, const CallOptions& call) const {
  v1::ReconstructRequest message;
  connection_->SetModel(request.model, message.mutable_model());
  ToMessage(request.images, message.mutable_images());
  message.set_output_format(ToMessage(request.format));
  const Options& options = connection_->options;
  v1::ReconstructResponse reply =
      Unary(options, call, options.timeout, connection_->generative.get(), &Generative::Reconstruct, message);
  ReconstructResult result;
  FillImages(&reply, &result);
  result.squared_error.assign(reply.squared_error().begin(), reply.squared_error().end());
  return result;
}

ImagesResult Client::Denoise(const DenoiseRequest& request, const CallOptions& call) const {
  v1::DenoiseRequest message;
  connection_->SetModel(request.model, message.mutable_model());
  ToMessage(request.images, message.mutable_images());
  message.set_output_format(ToMessage(request.format));
  const Options& options = connection_->options;
  v1::DenoiseResponse reply =
      Unary(options, call, options.timeout, connection_->generative.get(), &Generative::Denoise, message);
  ImagesResult result;
  FillImages(&reply, &result);
  return result;
}

}  // namespace latentserve
