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

// One case in the format of clients/conformance/README.md.
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
  // The expected result or error; the other one is null.
  json ok() const { return whole.at("expect").value("ok", json()); }
  json error() const { return whole.at("expect").value("error", json()); }
};

// Integer of a request, which is a string there; `absent` if it is not set.
std::int64_t Integer(const json& request, const char* key, std::int64_t absent);

// The seed, if set.
std::optional<std::uint64_t> Seed(const json& request);

// The temperature, if set.
std::optional<float> Temperature(const json& request);

// Folder that holds the cases.
class Folder {
 public:
  explicit Folder(std::filesystem::path path) : path_(std::move(path)) {}

  // Returns the cases of these groups, or of all groups if none is given. Throws for an unknown group, and
  // for unknown fields, which this runner would not check.
  std::vector<Case> Read(const std::set<std::string>& groups) const;

  std::string File(const std::string& path) const;

  // The bytes of {"file": PATH} or {"zeros": N}.
  std::string Bytes(const json& data) const;

  // The bytes of a TENSOR, including repeats.
  std::string TensorBytes(const json& tensor) const;

  // A TENSOR whose bytes match its shape.
  latentserve::Tensor Tensor(const json& tensor) const;

 private:
  std::filesystem::path path_;
};

// Creates a tensor from the name of its data type, its shape and little-endian bytes.
latentserve::Tensor DecodeTensor(const std::string& dtype, std::vector<std::int64_t> shape,
                                 const std::string& data);

}  // namespace conformance

#endif  // LATENTSERVE_CONFORMANCE_CASES_H_
