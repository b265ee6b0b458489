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

// One field of a request that is wrong.
struct Violation {
  // A dotted path in the request, for example "images.tensor.shape".
  std::string field;
  // What was sent and what is expected.
  std::string description;
};

// What an error is, beyond its code.
enum class ErrorKind {
  kOther,
  // Too many rows wait for the model; Error::retry_after() says how long to wait.
  kQueueFull,
  // The request or the reply exceeds a limit. Trying again does not help: send fewer images, ask for UINT8 or
  // PNG, or raise Options::max_message_bytes.
  kMessageTooLarge,
  // The model lacks the operation; metadata()["operations"] lists its own.
  kOperationNotSupported,
  // No such model or version; metadata()["models"] lists what there is.
  kModelNotFound,
  // The reply breaks the wire contract; server and client differ in version.
  kBadReply,
};

// What went wrong in a call: by the server's answer, on the way to it, or before anything was sent (then with
// INVALID_ARGUMENT). what() holds the code, the message, and what of the details the message lacks.
class Error : public std::runtime_error {
 public:
  // The error of a failed gRPC call, also of one made with the generated stubs. `unsaid` is the message where
  // the server sends none.
  static Error FromStatus(const grpc::Status& status,
                          const std::string& unsaid = "the server gave no reason");

  // An argument that is refused before anything is sent.
  static Error Invalid(const std::string& field, const std::string& description);

  // A reply that breaks the wire contract.
  static Error BadReply(const std::string& message);

  // The gRPC status code, and its name as the protocol spells it.
  grpc::StatusCode code() const { return code_; }
  std::string code_name() const;

  // What was wrong, what is expected and what to do.
  const std::string& message() const { return message_; }

  ErrorKind kind() const { return kind_; }

  // The server's own name for the error, for example "QUEUE_FULL"; empty where it does not come from the
  // server.
  const std::string& reason() const { return reason_; }

  // "latentserve" where the server gave a reason.
  const std::string& domain() const { return domain_; }

  // Belongs to the reason; "request_id" finds the call in the server's log.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // The fields of the request that are wrong.
  const std::vector<Violation>& violations() const { return violations_; }

  // How long the server asks to wait before another attempt, where it says so.
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

// A status code as the protocol and every other language spell it.
std::string CodeName(grpc::StatusCode code);

}  // namespace latentserve

#endif  // LATENTSERVE_ERROR_H_
