#include "cases.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>

namespace conformance {
namespace {

void CheckKeys(const json& object, const std::set<std::string>& known, const std::string& where) {
  for (const auto& item : object.items()) {
    if (known.count(item.key()) == 0) throw std::runtime_error(where + " has an unknown field " + item.key());
  }
}

void CheckKnown(const Case& test) {
  static const std::set<std::string> kFields = {
      "name",     "server",      "rpc",   "through",         "request", "body",
      "metadata", "deadline_ms", "retry", "cancel_after_ms", "stream",  "expect"};
  static const std::set<std::string> kRequest = {"model",           "images",     "latents", "output_format",
                                                 "count",           "seed",       "offset",  "temperature",
                                                 "include_latents", "chunk_rows", "service", "names"};
  static const std::set<std::string> kOk = {"latents",       "log_variance", "squared_error", "images",
                                            "seed",          "served_by",    "chunks",        "models",
                                            "default_model", "outcomes",     "status",        "model"};
  static const std::set<std::string> kError = {"code",          "codes",      "reason",
                                               "domain",        "violations", "retry_info",
                                               "metadata_keys", "metadata",   "message_lacks"};
  CheckKeys(test.whole, kFields, test.name());
  CheckKeys(test.request(), kRequest, test.name() + ": request");
  CheckKeys(test.ok(), kOk, test.name() + ": ok");
  CheckKeys(test.error(), kError, test.name() + ": error");
}

template <typename Value>
std::vector<Value> Values(const std::string& data) {
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the files of the cases are little-endian");
  std::vector<Value> values(data.size() / sizeof(Value));
  if (!values.empty()) std::memcpy(values.data(), data.data(), values.size() * sizeof(Value));
  return values;
}

}  // namespace

std::int64_t Integer(const json& request, const char* key, std::int64_t absent) {
  return request.contains(key) ? std::stoll(request.at(key).get<std::string>()) : absent;
}

std::optional<std::uint64_t> Seed(const json& request) {
  if (!request.contains("seed")) return std::nullopt;
  return std::stoull(request.at("seed").get<std::string>());
}

std::optional<float> Temperature(const json& request) {
  if (!request.contains("temperature")) return std::nullopt;
  const json& value = request.at("temperature");
  return value.is_string() ? std::numeric_limits<float>::quiet_NaN() : value.get<float>();
}

std::vector<Case> Folder::Read(const std::set<std::string>& groups) const {
  std::vector<Case> cases;
  std::set<std::string> known;
  const json index = json::parse(File("index.json"));
  for (const auto& file : index.at("groups")) {
    const json document = json::parse(File(file));
    const std::string group = document.at("group");
    known.insert(group);
    if (!groups.empty() && groups.count(group) == 0) continue;
    for (const json& whole : document.at("cases")) {
      cases.push_back({whole});
      CheckKnown(cases.back());
    }
  }
  for (const std::string& group : groups) {
    if (known.count(group) == 0) throw std::runtime_error("unknown group " + group);
  }
  return cases;
}

std::string Folder::File(const std::string& path) const {
  std::ifstream file(path_ / path, std::ios::binary);
  if (!file) throw std::runtime_error((path_ / path).string() + " cannot be read");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string Folder::Bytes(const json& data) const {
  if (data.contains("file")) return File(data.at("file"));
  return std::string(data.at("zeros").get<std::size_t>(), '\0');
}

std::string Folder::TensorBytes(const json& tensor) const {
  const std::string once = Bytes(tensor.at("data"));
  std::string data;
  for (int k = tensor.value("repeat", 1); k > 0; --k) data += once;
  return data;
}

latentserve::Tensor Folder::Tensor(const json& tensor) const {
  return DecodeTensor(tensor.at("dtype"), tensor.at("shape"), TensorBytes(tensor));
}

latentserve::Tensor DecodeTensor(const std::string& dtype, std::vector<std::int64_t> shape,
                                 const std::string& data) {
  latentserve::Tensor tensor;
  tensor.shape = std::move(shape);
  if (dtype == "FLOAT32") {
    tensor.values = Values<float>(data);
  } else if (dtype == "FLOAT16") {
    tensor.values = Values<std::uint16_t>(data);
  } else if (dtype == "UINT8") {
    tensor.values = Values<std::uint8_t>(data);
  } else {
    throw std::runtime_error("the client has no data type " + dtype);
  }
  return tensor;
}

}  // namespace conformance
