#ifndef LATENTSERVE_ERROR_H_
#define LATENTSERVE_ERROR_H_

#include <grpcpp/support/status.h>

#include <chrono>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace latentserve {

// An invalid field of a request.
struct Violation {
  // Dotted path in the request, for example "images.tensor.shape".
  std::string field;
  // The value received and the value expected.
  std::string description;
};

// Kind of an error, more specific than its code.
enum class ErrorKind {
  kOther,
  // The queue of the model is full; retry after Error::retry_after().
  kQueueFull,
  // The request or the reply exceeds a size limit. A retry fails again: send fewer images, request UINT8 or
  // PNG, or raise Options::max_message_bytes.
  kMessageTooLarge,
  // The model lacks the operation; metadata()["operations"] lists those it supports.
  kOperationNotSupported,
  // Unknown model or version; metadata()["models"] lists the available models.
  kModelNotFound,
  // The reply violates the protocol; the versions of server and client differ.
  kBadReply,
};

// Error of a call: returned by the server, raised by the transport, or found before anything was sent (the
// code is then INVALID_ARGUMENT). what() contains the code, the message, and the details that the message
// does not contain.
class Error : public std::runtime_error {
 public:
  // Converts the status of a failed gRPC call, including calls made with the generated stubs.
  // `default_message` replaces an empty message of the server.
  static Error FromStatus(const grpc::Status& status,
                          const std::string& default_message = "the server sent no message");

  // The error for an argument that is invalid before anything is sent.
  static Error Invalid(const std::string& field, const std::string& description);

  // The error for a reply that violates the protocol.
  static Error BadReply(const std::string& message);

  // The gRPC status code, and its name in the gRPC specification.
  grpc::StatusCode code() const { return code_; }
  std::string code_name() const;

  // The cause, the expected value, and a remedy.
  const std::string& message() const { return message_; }

  ErrorKind kind() const { return kind_; }

  // The server's name of the error, for example "QUEUE_FULL"; empty if it does not come from the server.
  const std::string& reason() const { return reason_; }

  // "latentserve" if the server sent a reason.
  const std::string& domain() const { return domain_; }

  // Details of the reason; "request_id" identifies the call in the server's log.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // The invalid fields of the request.
  const std::vector<Violation>& violations() const { return violations_; }

  // The delay before a retry that the server requests, if any.
  std::optional<std::chrono::nanoseconds> retry_after() const { return retry_after_; }

 private:
  struct Parts;
  explicit Error(Parts parts);

  grpc::StatusCode code_;
  std::string message_;
  ErrorKind kind_;
  std::string reason_;
  std::string domain_;
  std::map<std::string, std::string> metadata_;
  std::vector<Violation> violations_;
  std::optional<std::chrono::nanoseconds> retry_after_;
};

// Name of a status code in the gRPC specification.
std::string CodeName(grpc::StatusCode code);

}  // namespace latentserve

#endif  // LATENTSERVE_ERROR_H_
