#include "latentserve/client.h"

#include <charconv>
#include <utility>

#include "channel.h"
#include "connection.h"

namespace latentserve {
namespace {

void Check(const Options& options) {
  if (options.timeout.count() <= 0) {
    throw Error::Invalid("timeout",
                         std::to_string(options.timeout.count()) + " ms; expected a positive time");
  }
  if (options.max_message_bytes < 1) {
    throw Error::Invalid("max_message_bytes",
                         std::to_string(options.max_message_bytes) + "; expected 1 to 2147483647");
  }
  v1::ModelRef unused;
  SetModelRef(options.model, &unused);  // fail here, not in the first call
  if (!options.token.empty() && !options.tls && !options.allow_insecure_token) {
    throw Error::Invalid(
        "token",
        "a token on a plaintext connection can be intercepted; set tls, or allow_insecure_token if "
        "something else protects the connection");
  }
  if (options.token.empty() && options.allow_insecure_token) {
    throw Error::Invalid("token", "allow_insecure_token is set, but the token is empty");
  }
  if (options.tls && options.tls->certificate.empty() != options.tls->key.empty()) {
    throw Error::Invalid("tls", "a client certificate requires its key and vice versa; one is missing");
  }
}

}  // namespace

void SetModelRef(const std::string& model, v1::ModelRef* message) {
  const std::size_t colon = model.find(':');
  message->set_name(model.substr(0, colon));
  if (colon == std::string::npos) return;
  std::int32_t version = 0;
  const char* end = model.data() + model.size();
  const auto [rest, problem] = std::from_chars(model.data() + colon + 1, end, version);
  if (problem != std::errc() || rest != end || version < 1) {
    throw Error::Invalid("model",
                         '"' + model + "\"; expected NAME or NAME:VERSION with a version of at least 1");
  }
  message->set_version(version);
}

void Client::Connection::SetModel(const std::string& model, v1::ModelRef* message) const {
  SetModelRef(model.empty() ? options.model : model, message);
}

Client::Client(const std::string& address, Options options) : connection_(std::make_shared<Connection>()) {
  Check(options);
  connection_->channel = MakeChannel(address, options);
  connection_->options = std::move(options);
  connection_->generative = v1::GenerativeService::NewStub(connection_->channel);
  connection_->models = v1::ModelService::NewStub(connection_->channel);
  connection_->health = grpc::health::v1::Health::NewStub(connection_->channel);
}

Client::~Client() = default;
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;

std::shared_ptr<grpc::Channel> Client::channel() const { return connection_->channel; }

}  // namespace latentserve
