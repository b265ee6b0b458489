#ifndef LATENTSERVE_CONFORMANCE_CHECKS_H_
#define LATENTSERVE_CONFORMANCE_CHECKS_H_

#include <stdexcept>
#include <string>

#include "calls.h"
#include "cases.h"

namespace conformance {

// What is not as the case expects it.
class Mismatch : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Each throws Mismatch.
void CheckAnswer(const Folder& folder, const Case& test, const Answer& got);
void CheckFailure(const Case& test, const latentserve::Error& failure, const Trailers& trailers);
// What ModelService or health says.
void CheckValue(const Answer& got, const json& expected);
// Compares a value with the expected JSON.
void Same(const std::string& name, const json& got, const json& expected);

}  // namespace conformance

#endif  // LATENTSERVE_CONFORMANCE_CHECKS_H_
