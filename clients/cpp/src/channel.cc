#include "channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

namespace latentserve {
namespace {

// Service config with the retry policy.
//
// RESOURCE_EXHAUSTED means a full queue, for which the server sends a delay in `grpc-retry-pushback-ms`, or a
// message that is too large, for which a retry fails again; the number of attempts and the throttle bound
// these retries. CANCELLED comes from a server that closed its port while the call arrived; a call cancelled
// by the client is not retried. Health checks are not retried, because they report the current state.
//
// Retries stop when half of the tokens are used, to relieve a failing server. A worker that crashes fails all
// calls in flight at once; half of the tokens must cover these.
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
    // One name may resolve to several servers: use all of them.
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
  // The default of gRPC is 4 MiB: about 1,300 MNIST images.
  arguments.SetMaxReceiveMessageSize(options.max_message_bytes);
  arguments.SetMaxSendMessageSize(options.max_message_bytes);
  // By default, gRPC does not retry requests above 256 KiB: about 80 MNIST images.
  arguments.SetInt(GRPC_ARG_PER_RPC_RETRY_BUFFER_SIZE, options.max_message_bytes);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, options.retries ? 1 : 0);
  arguments.SetString(GRPC_ARG_SERVICE_CONFIG, ServiceConfig(address));
  // Detect a dead peer within 40 s while a call is open; send no pings on idle channels.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // Reconnect to a restarted server sooner than after the default of 1 s.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 10'000);
  return grpc::CreateCustomChannel(address, Credentials(options), arguments);
}

}  // namespace latentserve
