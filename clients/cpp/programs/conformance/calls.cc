#include "calls.h"

#include <condition_variable>
#include <stdexcept>
#include <thread>

namespace conformance {
namespace {

using latentserve::CallOptions;
using latentserve::Client;
using latentserve::Format;
using latentserve::Images;

// Cancels a call after a delay, unless it has ended.
class Timer {
 public:
  Timer(std::chrono::milliseconds delay, latentserve::Cancellation cancellation)
      : thread_([this, delay, cancellation] {
          std::unique_lock<std::mutex> lock(mutex_);
          if (!over_changed_.wait_for(lock, delay, [this] { return over_; })) cancellation.Cancel();
        }) {}
  ~Timer() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      over_ = true;
    }
    over_changed_.notify_all();
    thread_.join();
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable over_changed_;
  bool over_ = false;
  std::thread thread_;
};

std::string ModelOf(const json& request) {
  if (!request.contains("model")) return "";
  const json& model = request.at("model");
  const std::string name = model.value("name", "");
  return model.contains("version") ? name + ":" + std::to_string(model.at("version").get<int>()) : name;
}

Format FormatOf(const json& request) {
  const std::string name = request.value("output_format", "FLOAT32");
  if (name == "FLOAT32") return Format::kFloat32;
  if (name == "FLOAT16") return Format::kFloat16;
  if (name == "UINT8") return Format::kUint8;
  if (name == "PNG") return Format::kPng;
  throw std::runtime_error("the client has no format " + name);
}

Images ImagesOf(const json& request, const Folder& folder) {
  const json& given = request.at("images");
  if (given.contains("tensor")) return Images(folder.Tensor(given.at("tensor")));
  Images::Files files;
  for (const auto& path : given.at("encoded")) files.push_back(folder.File(path));
  return Images(std::move(files));
}

Part OfResult(latentserve::ImagesResult result) {
  Part part;
  part.images = std::move(result.images);
  part.served_by = std::move(result.served_by);
  part.timings = result.timings;
  return part;
}

std::vector<Part> Only(Part part) { return {std::move(part)}; }

CallResult OfImages(const Client& client, const Folder& folder, const Case& test,
                    const CallOptions& options) {
  const json request = test.request();
  const std::string model = ModelOf(request);
  const Format format = FormatOf(request);
  if (test.method() == "Encode") {
    auto result = client.Encode({model, ImagesOf(request, folder), Seed(request)}, options);
    Part part;
    part.latents = std::move(result.latents);
    part.log_variance = std::move(result.log_variance);
    part.seed = result.seed;
    part.served_by = result.served_by;
    part.timings = result.timings;
    return Only(std::move(part));
  }
  if (test.method() == "Decode") {
    return Only(OfResult(client.Decode({model, folder.Tensor(request.at("latents")), format}, options)));
  }
  if (test.method() == "Denoise") {
    return Only(OfResult(client.Denoise({model, ImagesOf(request, folder), format}, options)));
  }
  auto result = client.Reconstruct({model, ImagesOf(request, folder), format}, options);
  latentserve::Tensor errors;
  errors.shape = {static_cast<std::int64_t>(result.squared_error.size())};
  errors.values = result.squared_error;
  Part part = OfResult(static_cast<latentserve::ImagesResult>(result));
  part.squared_error = std::move(errors);
  return Only(std::move(part));
}

// Reads a stream to its end, or cancels it after a number of chunks (0: never).
std::vector<Part> Chunks(const Client& client, const latentserve::SampleRequest& request,
                         const CallOptions& options, std::size_t limit) {
  std::vector<Part> parts;
  auto stream = client.SampleStream(request, options);
  for (auto& chunk : stream) {
    const std::int64_t offset = chunk.offset;
    parts.push_back(PartOf(std::move(chunk), offset));
    if (parts.size() == limit) return parts;
  }
  if (limit > 0) {
    throw std::runtime_error("the stream ended after " + std::to_string(parts.size()) +
                             " chunks, before the cancellation");
  }
  return parts;
}

CallResult OfSamples(const Client& client, const Case& test, const CallOptions& options) {
  const json given = test.request();
  latentserve::SampleRequest request;
  request.model = ModelOf(given);
  request.count = Integer(given, "count", 0);
  request.seed = Seed(given);
  request.offset = Integer(given, "offset", 0);
  request.temperature = Temperature(given);
  request.format = FormatOf(given);
  request.include_latents = given.value("include_latents", false);
  request.chunk_rows = given.value("chunk_rows", 0);
  if (test.method() == "Sample") return Only(PartOf(client.Sample(request, options), 0));
  if (!test.whole.contains("stream")) return Chunks(client, request, options, 0);
  const json& stream = test.whole.at("stream");
  std::vector<Part> parts = Chunks(client, request, options, stream.at("cancel_after"));
  if (stream.value("resume", false)) {
    for (const Part& part : parts) {
      request.count -= part.images->size();
      request.offset += part.images->size();
    }
    for (Part& part : Chunks(client, request, options, 0)) parts.push_back(std::move(part));
  }
  return parts;
}

CallResult ThroughClient(const Client& client, const Folder& folder, const Case& test,
                         const CallOptions& options) {
  const json request = test.request();
  const std::string method = test.method();
  if (method == "ListModels") return client.ListModels(options);
  if (method == "GetModel") return client.GetModel(ModelOf(request), options);
  if (method == "ReloadModels") {
    return client.ReloadModels(request.value("names", std::vector<std::string>()), options);
  }
  if (method == "Check") return client.Health(request.value("service", ""), options);
  if (method == "Watch") {
    auto watch = client.WatchHealth(request.value("service", ""), options);
    const auto first = watch.Next();
    if (!first) throw std::runtime_error("Watch ended without a status");
    return *first;
  }
  if (method == "Sample" || method == "SampleStream") return OfSamples(client, test, options);
  if (method == "Encode" || method == "Decode" || method == "Reconstruct" || method == "Denoise") {
    return OfImages(client, folder, test, options);
  }
  throw std::runtime_error("the client has no method " + test.rpc());
}

}  // namespace

Part PartOf(latentserve::SampleResult result, std::int64_t offset) {
  Part part;
  part.seed = result.seed;
  part.latents = std::move(result.latents);
  part.images = std::move(result.images);
  part.served_by = std::move(result.served_by);
  part.timings = result.timings;
  part.offset = offset;
  return part;
}

const Client& Caller::ClientOf(const Case& test) {
  const std::string server = test.whole.at("server");
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto key = std::make_pair(server, test.retry());
  const auto found = clients_.find(key);
  if (found != clients_.end()) return found->second;
  latentserve::Options options;
  options.retries = test.retry();
  return clients_.emplace(key, Client(addresses_.at(server), options)).first->second;
}

CallResult Caller::Call(const Case& test, Trailers* trailers) {
  const Client& client = ClientOf(test);
  CallOptions options;
  options.timeout = std::chrono::milliseconds(test.whole.value("deadline_ms", 20'000));
  const json metadata = test.whole.value("metadata", json::object());
  for (const auto& item : metadata.items()) {
    options.metadata.emplace(item.key(), item.value());
  }
  std::optional<Timer> timer;
  if (test.whole.contains("cancel_after_ms")) {
    options.cancellation.emplace();
    timer.emplace(std::chrono::milliseconds(test.whole.at("cancel_after_ms")), *options.cancellation);
  }
  if (test.through() == "client") return ThroughClient(client, folder_, test, options);
  return CallThroughStub(client, folder_, test, options, trailers);
}

}  // namespace conformance
