#ifndef LATENTSERVE_SRC_CHANNEL_H_
#define LATENTSERVE_SRC_CHANNEL_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "latentserve/options.h"

namespace latentserve {

// The channel to a server, set up as every latentserve client does it: sizes, keepalive, retries, load
// balancing, TLS.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const Options& options);

}  // namespace latentserve

#endif  // LATENTSERVE_SRC_CHANNEL_H_
