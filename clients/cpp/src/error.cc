#include "latentserve/error.h"

#include <cstdio>
#include <utility>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace latentserve {

struct Error::Parts {
  grpc::StatusCode code = grpc::StatusCode::UNKNOWN;
  std::string message;
  ErrorKind kind = ErrorKind::kOther;
  std::string reason;
  std::string domain;
  std::map<std::string, std::string> metadata;
  std::vector<Violation> violations;
  std::optional<std::chrono::nanoseconds> retry_after;

  std::string Text() const;
  ErrorKind Kind() const;
  void Read(const google::protobuf::Any& detail);
};

namespace {

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string Seconds(std::chrono::nanoseconds delay) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g s", std::chrono::duration<double>(delay).count());
  return text;
}

}  // namespace

std::string CodeName(grpc::StatusCode code) {
  static constexpr const char* kNames[] = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  const auto index = static_cast<std::size_t>(code);
  return index < std::size(kNames) ? kNames[index] : "CODE_" + std::to_string(index);
}

// Returns the text of what().
std::string Error::Parts::Text() const {
  std::string text = "latentserve: " + CodeName(code) + ": " + message;
  for (const Violation& violation : violations) {
    // The server often uses its only violation as the message.
    if (!Contains(message, violation.description))
      text += "; " + violation.field + ": " + violation.description;
  }
  const auto value = [this](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() || Contains(message, found->second) ? std::string() : found->second;
  };
  if (const std::string id = value("request_id"); code == grpc::StatusCode::INTERNAL && !id.empty()) {
    text += "; for the cause, search the server's log for request id " + id;
  }
  for (const char* key : {"models", "operations"}) {
    if (const std::string have = value(key); !have.empty()) text += "; available: " + have;
  }
  if (retry_after) text += "; retry after " + Seconds(*retry_after);
  return text;
}

ErrorKind Error::Parts::Kind() const {
  if (reason == "QUEUE_FULL") return ErrorKind::kQueueFull;
  if (reason == "OPERATION_NOT_SUPPORTED") return ErrorKind::kOperationNotSupported;
  if (reason == "MODEL_NOT_FOUND") return ErrorKind::kModelNotFound;
  // This error comes from gRPC itself, which sends a message without details.
  if (code == grpc::StatusCode::RESOURCE_EXHAUSTED && Contains(message, "larger than max")) {
    return ErrorKind::kMessageTooLarge;
  }
  return ErrorKind::kOther;
}

void Error::Parts::Read(const google::protobuf::Any& detail) {
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad;
  google::rpc::RetryInfo retry;
  if (detail.UnpackTo(&info)) {
    reason = info.reason();
    domain = info.domain();
    metadata = {info.metadata().begin(), info.metadata().end()};
  } else if (detail.UnpackTo(&bad)) {
    for (const auto& violation : bad.field_violations()) {
      violations.push_back({violation.field(), violation.description()});
    }
  } else if (detail.UnpackTo(&retry)) {
    const auto& delay = retry.retry_delay();
    retry_after = std::chrono::seconds(delay.seconds()) + std::chrono::nanoseconds(delay.nanos());
  }
}

Error::Error(Parts parts)
    : std::runtime_error(parts.Text()),
      code_(parts.code),
      message_(std::move(parts.message)),
      kind_(parts.kind),
      reason_(std::move(parts.reason)),
      domain_(std::move(parts.domain)),
      metadata_(std::move(parts.metadata)),
      violations_(std::move(parts.violations)),
      retry_after_(parts.retry_after) {}

Error Error::FromStatus(const grpc::Status& status, const std::string& default_message) {
  Parts parts;
  parts.code = status.error_code();
  parts.message = status.error_message().empty() ? default_message : status.error_message();
  // Details that cannot be parsed are ignored; the code and the message remain.
  google::rpc::Status details;
  if (details.ParseFromString(status.error_details())) {
    for (const auto& detail : details.details()) parts.Read(detail);
  }
  parts.kind = parts.Kind();
  return Error(std::move(parts));
}

Error Error::Invalid(const std::string& field, const std::string& description) {
  Parts parts;
  parts.code = grpc::StatusCode::INVALID_ARGUMENT;
  parts.message = field + ": " + description;
  parts.violations.push_back({field, description});
  return Error(std::move(parts));
}

Error Error::BadReply(const std::string& message) {
  Parts parts;
  parts.code = grpc::StatusCode::INTERNAL;
  parts.message = message + "; the versions of the server and this client differ: update the older one";
  parts.kind = ErrorKind::kBadReply;
  return Error(std::move(parts));
}

std::string Error::code_name() const { return CodeName(code_); }

}  // namespace latentserve
