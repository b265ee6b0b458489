#ifndef LATENTSERVE_CONFORMANCE_CHECKS_H_
#define LATENTSERVE_CONFORMANCE_CHECKS_H_

#include <stdexcept>
#include <string>

#include "calls.h"
#include "cases.h"

namespace conformance {

// The result differs from the expectation of the case.
class Mismatch : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// All checks throw Mismatch.
void CheckResult(const Folder& folder, const Case& test, const CallResult& got);
void CheckFailure(const Case& test, const latentserve::Error& failure, const Trailers& trailers);
// Checks a reply of ModelService or health.
void CheckValue(const CallResult& got, const json& expected);
// Compares a value with the expected JSON.
void Same(const std::string& name, const json& got, const json& expected);

}  // namespace conformance

#endif  // LATENTSERVE_CONFORMANCE_CHECKS_H_
