#ifndef LATENTSERVE_CONFORMANCE_CASES_H_
#define LATENTSERVE_CONFORMANCE_CASES_H_

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "latentserve/client.h"

namespace conformance {

using nlohmann::json;

// One case, as clients/conformance/README.md describes it.
struct Case {
  json whole;

  std::string name() const { return whole.at("name"); }
  std::string group() const { return name().substr(0, name().find('/')); }
  std::string rpc() const { return whole.at("rpc"); }
  // The method's name without package and service.
  std::string method() const { return rpc().substr(rpc().rfind('/') + 1); }
  std::string through() const { return whole.at("through"); }
  json request() const { return whole.value("request", json::object()); }
  bool retry() const { return whole.value("retry", false); }
  // The expected outcome, null where the other one is expected.
  json ok() const { return whole.at("expect").value("ok", json()); }
  json error() const { return whole.at("expect").value("error", json()); }
};

// An integer of a request, which is text there; `absent` where it is not given.
std::int64_t Integer(const json& request, const char* key, std::int64_t absent);

// The seed, nothing where none is given.
std::optional<std::uint64_t> Seed(const json& request);

// The temperature, nothing where none is given.
std::optional<float> Temperature(const json& request);

// The folder of all cases.
class Folder {
 public:
  explicit Folder(std::filesystem::path path) : path_(std::move(path)) {}

  // The cases of all groups, or of these. Throws for an unknown group, and for what this runner does not know
  // and so would not check.
  std::vector<Case> Read(const std::set<std::string>& groups) const;

  std::string File(const std::string& path) const;

  // {"file": PATH} or {"zeros": N}.
  std::string Bytes(const json& data) const;

  // The bytes of a TENSOR, repeated as it says.
  std::string TensorBytes(const json& tensor) const;

  // A TENSOR whose bytes fit its shape.
  latentserve::Tensor Tensor(const json& tensor) const;

 private:
  std::filesystem::path path_;
};

// A tensor of a type's name, shape and little-endian bytes.
latentserve::Tensor DecodeTensor(const std::string& dtype, std::vector<std::int64_t> shape,
                                 const std::string& data);

}  // namespace conformance

#endif  // LATENTSERVE_CONFORMANCE_CASES_H_
