#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <stdexcept>

#include "calls.h"
#include "latentserve/v1/generative_service.grpc.pb.h"
#include "latentserve/v1/model_service.grpc.pb.h"

namespace conformance {
namespace {

namespace v1 = latentserve::v1;
using latentserve::Error;

// Context of one call, with its trailers.
class Context {
 public:
  Context(const latentserve::CallOptions& options, Trailers* trailers)
      : trailers_(trailers), scope_(options.cancellation, &context_) {
    context_.set_deadline(std::chrono::system_clock::now() + *options.timeout);
    for (const auto& [key, value] : options.metadata) context_.AddMetadata(key, value);
  }

  grpc::ClientContext* get() { return &context_; }

  // Stores the trailers; throws if the call failed.
  void End(const grpc::Status& status) {
    for (const auto& [key, value] : context_.GetServerTrailingMetadata()) {
      trailers_->emplace(std::string(key.data(), key.size()), std::string(value.data(), value.size()));
    }
    if (!status.ok()) throw Error::FromStatus(status);
  }

 private:
  Trailers* trailers_;
  grpc::ClientContext context_;
  latentserve::CancellationScope scope_;
};

// Returns an enum value by its name without prefix, or an unknown value by its number.
template <typename Enum, typename Parse>
Enum EnumOf(const json& object, const char* key, const std::string& prefix, Parse parse) {
  const std::string name = object.value(key, "UNSPECIFIED");
  Enum value{};
  if (parse(prefix + name, &value)) return value;
  return static_cast<Enum>(std::stoi(name));
}

void SetTensor(const json& given, const Folder& folder, v1::Tensor* message) {
  message->set_data_type(EnumOf<v1::DataType>(given, "dtype", "DATA_TYPE_", v1::DataType_Parse));
  for (const std::int64_t n : given.at("shape")) message->add_shape(n);
  message->set_data(folder.TensorBytes(given));
}

template <typename Message>
void SetModel(const json& request, Message* message) {
  if (!request.contains("model")) return;
  message->mutable_model()->set_name(request.at("model").value("name", ""));
  message->mutable_model()->set_version(request.at("model").value("version", 0));
}

template <typename Message>
void SetImages(const json& request, const Folder& folder, Message* message) {
  if (!request.contains("images")) return;
  const json& given = request.at("images");
  if (given.contains("tensor")) {
    SetTensor(given.at("tensor"), folder, message->mutable_images()->mutable_tensor());
    return;
  }
  auto* encoded = message->mutable_images()->mutable_encoded();
  for (const auto& path : given.at("encoded")) encoded->add_files(folder.File(path));
}

template <typename Message>
void SetFormat(const json& request, Message* message) {
  message->set_output_format(
      EnumOf<v1::ImageFormat>(request, "output_format", "IMAGE_FORMAT_", v1::ImageFormat_Parse));
}

template <typename Message>
Message DrawOf(const json& request) {
  Message message;
  SetModel(request, &message);
  SetFormat(request, &message);
  message.set_count(static_cast<decltype(message.count())>(Integer(request, "count", 0)));
  if (const auto seed = Seed(request)) message.set_seed(*seed);
  message.set_offset(Integer(request, "offset", 0));
  if (const auto temperature = Temperature(request)) message.set_temperature(*temperature);
  message.set_include_latents(request.value("include_latents", false));
  return message;
}

latentserve::Tensor TensorOf(const v1::Tensor& message) {
  const std::string name = v1::DataType_Name(message.data_type());
  return DecodeTensor(name.substr(name.rfind('_') + 1), {message.shape().begin(), message.shape().end()},
                      message.data());
}

template <typename Reply>
Part PartOfReply(const Reply& reply) {
  Part part;
  if (reply.images().has_tensor()) {
    part.images = latentserve::Images(TensorOf(reply.images().tensor()));
  } else {
    const auto& files = reply.images().encoded().files();
    part.images = latentserve::Images(latentserve::Images::Files(files.begin(), files.end()));
  }
  if (reply.has_latents()) part.latents = TensorOf(reply.latents());
  part.seed = reply.seed();
  const auto& by = reply.served_by();
  part.served_by = {by.name(), by.version(), by.digest(), by.provider()};
  const auto& timings = reply.timings();
  part.timings = {std::chrono::nanoseconds(timings.queue_ns()),
                  std::chrono::nanoseconds(timings.compute_ns()), timings.batch_rows()};
  return part;
}

// Sends a raw request to any method and returns the raw replies.
std::vector<grpc::ByteBuffer> CallBytes(const std::shared_ptr<grpc::Channel>& channel,
                                        const std::string& method, const std::string& body,
                                        Context* context) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  const auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  const auto call = stub.PrepareCall(context->get(), "/" + method, &queue);
  call->StartCall(nullptr);
  next();
  const grpc::Slice slice(body);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  next();
  std::vector<grpc::ByteBuffer> replies;
  grpc::ByteBuffer reply;
  for (call->Read(&reply, nullptr); next(); call->Read(&reply, nullptr)) replies.push_back(reply);
  grpc::Status status;
  call->Finish(&status, nullptr);
  next();
  context->End(status);
  return replies;
}

CallResult OfBytes(const latentserve::Client& client, const Folder& folder, const Case& test,
                   Context* context) {
  std::vector<Part> parts;
  for (const grpc::ByteBuffer& buffer :
       CallBytes(client.channel(), test.rpc(), folder.Bytes(test.whole.at("body")), context)) {
    grpc::Slice slice;
    if (!buffer.DumpToSingleSlice(&slice).ok()) throw std::runtime_error("the reply cannot be parsed");
    v1::SampleResponse reply;
    if (test.method() != "Sample" || !reply.ParseFromArray(slice.begin(), static_cast<int>(slice.size()))) {
      throw std::runtime_error(test.rpc() + " succeeded, but this runner checks only its errors");
    }
    parts.push_back(PartOfReply(reply));
  }
  return parts;
}

template <typename Reply, typename Stub, typename Request>
Reply Unary(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
            const Request& request, Context* context) {
  Reply reply;
  context->End((stub.*method)(context->get(), request, &reply));
  return reply;
}

CallResult OfStream(v1::GenerativeService::Stub& stub, const json& request, Context* context) {
  auto message = DrawOf<v1::SampleStreamRequest>(request);
  message.set_chunk_rows(request.value("chunk_rows", 0));
  const auto reader = stub.SampleStream(context->get(), message);
  std::vector<Part> parts;
  v1::SampleStreamResponse reply;
  while (reader->Read(&reply)) {
    parts.push_back(PartOfReply(reply));
    parts.back().offset = reply.offset();
  }
  context->End(reader->Finish());
  return parts;
}

}  // namespace

CallResult CallThroughStub(const latentserve::Client& client, const Folder& folder, const Case& test,
                           const latentserve::CallOptions& options, Trailers* trailers) {
  Context context(options, trailers);
  if (test.through() == "bytes") return OfBytes(client, folder, test, &context);
  using Stub = v1::GenerativeService::Stub;
  Stub stub(client.channel());
  const json request = test.request();
  const std::string method = test.method();
  if (method == "SampleStream") return OfStream(stub, request, &context);
  if (method == "Sample") {
    return std::vector<Part>{
        PartOfReply(Unary(stub, &Stub::Sample, DrawOf<v1::SampleRequest>(request), &context))};
  }
  if (method == "Encode") {
    v1::EncodeRequest message;
    SetModel(request, &message);
    SetImages(request, folder, &message);
    if (const auto seed = Seed(request)) message.set_seed(*seed);
    Unary(stub, &Stub::Encode, message, &context);
  } else if (method == "Decode") {
    v1::DecodeRequest message;
    SetModel(request, &message);
    SetFormat(request, &message);
    if (request.contains("latents")) SetTensor(request.at("latents"), folder, message.mutable_latents());
    Unary(stub, &Stub::Decode, message, &context);
  } else if (method == "Reconstruct") {
    v1::ReconstructRequest message;
    SetModel(request, &message);
    SetFormat(request, &message);
    SetImages(request, folder, &message);
    Unary(stub, &Stub::Reconstruct, message, &context);
  } else if (method == "Denoise") {
    v1::DenoiseRequest message;
    SetModel(request, &message);
    SetFormat(request, &message);
    SetImages(request, folder, &message);
    Unary(stub, &Stub::Denoise, message, &context);
  } else {
    throw std::runtime_error("this runner has no request message for " + test.rpc());
  }
  throw std::runtime_error(test.rpc() + " succeeded, but this runner checks only its errors");
}

}  // namespace conformance
