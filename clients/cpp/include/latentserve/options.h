#ifndef LATENTSERVE_OPTIONS_H_
#define LATENTSERVE_OPTIONS_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "latentserve/cancellation.h"

namespace latentserve {

// How the connection is encrypted. All empty: trust the authorities that this machine trusts.
struct Tls {
  // PEM of the authority that signed the server's certificate.
  std::string authority;
  // PEM of this client's own certificate and its key, where the server asks for one.
  std::string certificate;
  std::string key;

  // Reads PEM files; an empty name for what is not needed. Throws Error for a file that cannot be read or
  // holds no PEM, and for a certificate without its key.
  static Tls FromFiles(const std::string& authority_file, const std::string& certificate_file = "",
                       const std::string& key_file = "");
};

// What is set once for a client.
struct Options {
  // The model of calls that name none: "NAME" or "NAME:VERSION". Empty: the server's default model.
  std::string model;

  // The deadline of calls that set none, all attempts included; of a stream, for the whole of it.
  std::chrono::milliseconds timeout{10'000};

  // Calls wait, within their deadline, for a server that cannot be reached yet, instead of failing at once.
  bool wait_for_ready = false;

  // Whether calls are tried again, as clients/README.md says.
  bool retries = true;

  // Bounds one request and one reply.
  std::int32_t max_message_bytes = 64 << 20;

  // Absent: plain text.
  std::optional<Tls> tls;

  // A bearer token, sent with each call. Needs TLS: in plain text, whoever is on the way could read it.
  std::string token;

  // Sends the token also without TLS: for a connection that something else protects, such as a sidecar on the
  // same machine.
  bool allow_insecure_token = false;
};

// What may be set for a single call.
struct CallOptions {
  // Absent: Options::timeout.
  std::optional<std::chrono::milliseconds> timeout;

  // Cancels the call from another thread; the same handle may serve many calls.
  std::optional<Cancellation> cancellation;

  // Further metadata.
  std::multimap<std::string, std::string> metadata;
};

}  // namespace latentserve

#endif  // LATENTSERVE_OPTIONS_H_
