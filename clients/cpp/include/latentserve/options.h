#ifndef LATENTSERVE_OPTIONS_H_
#define LATENTSERVE_OPTIONS_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "latentserve/cancellation.h"

namespace latentserve {

// TLS settings. If all are empty, trusts the certificate authorities of the system.
struct Tls {
  // PEM of the authority that signed the server's certificate.
  std::string authority;
  // PEM of the client certificate and its key, if the server requires one.
  std::string certificate;
  std::string key;

  // Reads PEM files; pass empty names for files that are not needed. Throws Error for a file that cannot be
  // read or contains no PEM, and for a certificate without its key.
  static Tls FromFiles(const std::string& authority_file, const std::string& certificate_file = "",
                       const std::string& key_file = "");
};

// Settings of a client.
struct Options {
  // The model of requests that name none: "NAME" or "NAME:VERSION"; if empty, the server's default model.
  std::string model;

  // Timeout of calls that set none, including all attempts and, for a stream, all of its chunks.
  std::chrono::milliseconds timeout{10'000};

  // Whether calls wait until their deadline for a server that cannot be reached, instead of failing at once.
  bool wait_for_ready = false;

  // Whether calls are retried by the rules of clients/README.md.
  bool retries = true;

  // Maximum size of a request or reply in bytes.
  std::int32_t max_message_bytes = 64 << 20;

  // If absent, the connection is plaintext.
  std::optional<Tls> tls;

  // Bearer token of all calls. Requires TLS, because a token on a plaintext connection can be intercepted.
  std::string token;

  // Allows a token without TLS, for a connection that something else protects, such as a sidecar on the same
  // machine.
  bool allow_insecure_token = false;
};

// Settings of a single call.
struct CallOptions {
  // If absent, Options::timeout.
  std::optional<std::chrono::milliseconds> timeout;

  // Cancels the call from another thread; one handle may be used for many calls.
  std::optional<Cancellation> cancellation;

  // Additional metadata.
  std::multimap<std::string, std::string> metadata;
};

}  // namespace latentserve

#endif  // LATENTSERVE_OPTIONS_H_
