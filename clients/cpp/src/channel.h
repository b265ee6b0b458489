#ifndef LATENTSERVE_SRC_CHANNEL_H_
#define LATENTSERVE_SRC_CHANNEL_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "latentserve/options.h"

namespace latentserve {

// Returns the channel to a server, with the settings of all latentserve clients: message sizes, keepalive,
// retries, load balancing and TLS.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const Options& options);

}  // namespace latentserve

#endif  // LATENTSERVE_SRC_CHANNEL_H_
