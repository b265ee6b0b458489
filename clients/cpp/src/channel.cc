#include "channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

namespace latentserve {
namespace {

// RESOURCE_EXHAUSTED means a full queue, where the server says how long to wait by `grpc-retry-pushback-ms`,
// but also a message that is too large, where trying again is useless: hence few attempts and the throttle.
// CANCELLED comes from a server that was closing its port as the call arrived; a call that its caller cancels
// is not tried again. Health checks are not either: they report what is.
//
// No more retries once half of the throttle's tokens are gone: a server in trouble is left alone. A worker
// that dies fails all calls in flight at once, and these must fit into the half.
constexpr char kRetries[] = R"(
  "methodConfig": [
    {
      "name": [{"service": "latentserve.v1.GenerativeService"}],
      "retryPolicy": {
        "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"]
      }
    },
    {
      "name": [{"service": "latentserve.v1.ModelService"}],
      "retryPolicy": {
        "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
      }
    }
  ],
  "retryThrottling": {"maxTokens": 200, "tokenRatio": 0.1})";

std::string ServiceConfig(const std::string& address) {
  std::string config = std::string("{") + kRetries;
  if (address.rfind("dns:///", 0) == 0) {
    // One name for several servers: use all of them.
    config += R"(, "loadBalancingConfig": [{"round_robin": {}}])";
  }
  return config + "}";
}

std::shared_ptr<grpc::ChannelCredentials> Credentials(const Options& options) {
  if (!options.tls) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions ssl;
  ssl.pem_root_certs = options.tls->authority;
  ssl.pem_cert_chain = options.tls->certificate;
  ssl.pem_private_key = options.tls->key;
  return grpc::SslCredentials(ssl);
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const Options& options) {
  grpc::ChannelArguments arguments;
  // gRPC would refuse replies above 4 MiB: some 1,300 MNIST images.
  arguments.SetMaxReceiveMessageSize(options.max_message_bytes);
  arguments.SetMaxSendMessageSize(options.max_message_bytes);
  // gRPC would not try a request above 256 KiB again: some 80 MNIST images.
  arguments.SetInt(GRPC_ARG_PER_RPC_RETRY_BUFFER_SIZE, options.max_message_bytes);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, options.retries ? 1 : 0);
  arguments.SetString(GRPC_ARG_SERVICE_CONFIG, ServiceConfig(address));
  // Notice a dead peer within 40 s while a call is open; idle channels stay silent.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // Try a server that just started again soon, not after a second.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 10'000);
  return grpc::CreateCustomChannel(address, Credentials(options), arguments);
}

}  // namespace latentserve
