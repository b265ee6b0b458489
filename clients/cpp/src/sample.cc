#include <limits>

#include "call.h"
#include "connection.h"
#include "convert.h"

namespace latentserve {
namespace {

// Highest row at which a stream may start.
constexpr std::int64_t kMaxOffset = std::int64_t{1} << 62;

// Checks a request and sets the common fields of Sample and SampleStream.
template <typename Message>
void SetRequest(const SampleRequest& request, std::int64_t max_count, Message* message) {
  if (request.count < 1 || request.count > max_count) {
    throw Error::Invalid("count",
                         std::to_string(request.count) + "; expected 1 to " + std::to_string(max_count));
  }
  if (request.offset < 0 || request.offset > kMaxOffset) {
    throw Error::Invalid("offset", std::to_string(request.offset) + "; expected 0 to 2^62");
  }
  if (request.temperature) {
    // Written so that NaN fails too.
    if (!(*request.temperature >= 0 && *request.temperature <= 10)) {
      throw Error::Invalid("temperature", std::to_string(*request.temperature) + "; expected 0 to 10");
    }
    message->set_temperature(*request.temperature);
  }
  message->set_count(static_cast<decltype(message->count())>(request.count));
  if (request.seed) message->set_seed(*request.seed);
  message->set_offset(request.offset);
  message->set_output_format(ToMessage(request.format));
  message->set_include_latents(request.include_latents);
}

template <typename Reply>
void FillResult(Reply* reply, SampleResult* result) {
  FillImages(reply, result);
  result->seed = reply->seed();
  if (reply->has_latents()) result->latents = FromMessage(reply->mutable_latents(), 2);
}

SampleChunk FromReply(v1::SampleStreamResponse reply) {
  SampleChunk chunk;
  FillResult(&reply, &chunk);
  chunk.offset = reply.offset();
  return chunk;
}

}  // namespace

SampleResult Client::Sample(const SampleRequest& request, const CallOptions& call) const {
  v1::SampleRequest message;
  connection_->SetModel(request.model, message.mutable_model());
  SetRequest(request, std::numeric_limits<std::int32_t>::max(), &message);
  const Options& options = connection_->options;
  v1::SampleResponse reply = Unary(options, call, options.timeout, connection_->generative.get(),
                                   &v1::GenerativeService::Stub::Sample, message);
  SampleResult result;
  FillResult(&reply, &result);
  return result;
}

latentserve::SampleStream Client::SampleStream(const SampleRequest& request, const CallOptions& call) const {
  v1::SampleStreamRequest message;
  connection_->SetModel(request.model, message.mutable_model());
  SetRequest(request, std::numeric_limits<std::int64_t>::max(), &message);
  if (request.chunk_rows < 0) {
    throw Error::Invalid("chunk_rows", std::to_string(request.chunk_rows) + "; expected 0 or more");
  }
  message.set_chunk_rows(request.chunk_rows);
  using Source = CallSource<v1::SampleStreamResponse, SampleChunk, Connection>;
  auto source = std::make_unique<Source>(connection_, FromReply);
  Prepare(connection_->options, call, connection_->options.timeout, source->context());
  source->Start(call.cancellation, connection_->generative->SampleStream(source->context(), message));
  return latentserve::SampleStream(std::move(source));
}

}  // namespace latentserve
