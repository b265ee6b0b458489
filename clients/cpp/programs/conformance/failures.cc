#include <algorithm>

#include "checks.h"

namespace conformance {
namespace {

// The client's message if the server sent none.
constexpr char kDefaultMessage[] = "the server sent no message";

std::string MetadataOf(const latentserve::Error& failure, const std::string& key) {
  const auto found = failure.metadata().find(key);
  return found == failure.metadata().end() ? "" : found->second;
}

void CheckRetry(const Case& test, const latentserve::Error& failure, const Trailers& trailers) {
  const bool wanted = test.error().value("retry_info", false);
  const auto delay = failure.retry_after();
  if ((delay && delay->count() > 0) != wanted) {
    throw Mismatch(wanted ? "RetryInfo is missing" : "RetryInfo is present, expected none");
  }
  if (test.through() != "stub") return;
  json pushback = json::array();
  const auto [first, last] = trailers.equal_range("grpc-retry-pushback-ms");
  for (auto entry = first; entry != last; ++entry) pushback.push_back(entry->second);
  json expected = json::array();
  if (wanted) {
    expected.push_back(std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(*delay).count()));
  }
  Same("grpc-retry-pushback-ms", pushback, expected);
}

void CheckDetails(const latentserve::Error& failure, const json& expected) {
  Same("reason", failure.reason(), expected.at("reason"));
  Same("domain", failure.domain(), expected.value("domain", ""));
  json fields = json::array();
  for (const auto& violation : failure.violations()) {
    if (violation.description.empty())
      throw Mismatch("the violation of " + violation.field + " has no description");
    fields.push_back(violation.field);
  }
  Same("violations", fields, expected.value("violations", json::array()));
  for (const auto& key : expected.value("metadata_keys", json::array())) {
    if (MetadataOf(failure, key).empty()) throw Mismatch("the error's metadata has no " + key.dump());
  }
  const json metadata = expected.value("metadata", json::object());
  for (const auto& item : metadata.items()) {
    Same("metadata " + item.key(), MetadataOf(failure, item.key()), item.value());
  }
  for (const auto& text : expected.value("message_lacks", json::array())) {
    if (failure.message().find(text.get<std::string>()) != std::string::npos) {
      throw Mismatch("the message contains " + text.dump() + ": " + failure.message());
    }
  }
}

}  // namespace

void CheckFailure(const Case& test, const latentserve::Error& failure, const Trailers& trailers) {
  const json expected = test.error();
  if (expected.is_null()) throw Mismatch(failure.what());
  const json codes = expected.contains("codes") ? expected.at("codes") : json::array({expected.at("code")});
  const std::string code = failure.code_name();
  if (std::find(codes.begin(), codes.end(), code) == codes.end()) {
    throw Mismatch("the code is " + code + " (" + failure.message() + "), expected " + codes.dump());
  }
  const bool may_be_empty =
      code == "CANCELLED" || code == "DEADLINE_EXCEEDED" || test.rpc().rfind("grpc.health.", 0) == 0;
  if (!may_be_empty && (failure.message().empty() || failure.message() == kDefaultMessage)) {
    throw Mismatch("the error has no message");
  }
  if (!expected.contains("reason")) return;
  CheckDetails(failure, expected);
  CheckRetry(test, failure, trailers);
}

}  // namespace conformance
