#include "checks.h"

#include <cmath>
#include <functional>

#include "png_files.h"

namespace conformance {
namespace {

using latentserve::Tensor;

constexpr int kMaxBatchRows = 64;

void CheckSignature(const Part& got, const json& expected) {
  const auto& by = got.served_by;
  if (!expected.is_null()) {
    Same("served_by", {{"name", by.name}, {"version", by.version}, {"digest", by.digest}}, expected);
  }
  if (by.provider.empty()) throw Mismatch("served_by.provider is empty");
  const auto& t = got.timings;
  if (t.queue.count() < 0 || t.compute.count() <= 0 || t.batch_rows < 1 || t.batch_rows > kMaxBatchRows) {
    throw Mismatch("timings are " + std::to_string(t.queue.count()) + " ns, " +
                   std::to_string(t.compute.count()) + " ns, " + std::to_string(t.batch_rows) + " rows");
  }
}

void CheckSeed(const Part& got, const Part& first, const json& expected) {
  if (expected.is_null()) {
    if (got.seed) throw Mismatch("the seed is " + std::to_string(*got.seed) + ", expected none");
    return;
  }
  if (!got.seed) throw Mismatch("the seed is missing, expected " + expected.dump());
  if (expected == "any") {
    if (got.seed != first.seed) throw Mismatch("one stream has two seeds");
    return;
  }
  Same("seed", std::to_string(*got.seed), expected);
}

void CheckChunks(const Case& test, const std::vector<Part>& parts) {
  const std::int64_t start = Integer(test.request(), "offset", 0);
  std::int64_t next = start;
  json chunks = json::array();
  for (const Part& part : parts) {
    const std::int64_t rows = part.images ? part.images->size() : 0;
    Same("offset of a chunk", part.offset, next);
    if (part.latents && part.latents->Rows() != rows) {
      throw Mismatch(std::to_string(part.latents->Rows()) + " latent vectors and " + std::to_string(rows) +
                     " images in one chunk");
    }
    chunks.push_back({{"offset", std::to_string(part.offset)}, {"rows", rows}});
    next += rows;
  }
  if (test.ok().contains("chunks")) Same("chunks", chunks, test.ok().at("chunks"));
  const json stream = test.whole.value("stream", json::object());
  const bool whole = stream.empty() || stream.value("resume", false);
  if (whole) Same("total rows of chunks", next - start, Integer(test.request(), "count", 0));
}

std::string TypeOf(const Tensor& tensor) {
  static constexpr const char* kNames[] = {"FLOAT32", "FLOAT16", "UINT8"};
  return kNames[tensor.values.index()];
}

// Returns the values; UINT8 values are 0 to 255.
std::vector<double> ValuesOf(const Tensor& tensor) {
  if (const auto* levels = std::get_if<std::vector<std::uint8_t>>(&tensor.values)) {
    return {levels->begin(), levels->end()};
  }
  const std::vector<float> floats = tensor.Floats();
  return {floats.begin(), floats.end()};
}

// Compares concatenated tensors with the expected tensor.
void CheckTensor(const Folder& folder, const std::string& name, const std::vector<Tensor>& parts,
                 const json& expected) {
  std::vector<std::int64_t> shape;
  std::vector<double> got;
  for (const Tensor& part : parts) {
    Same(name + ": data type", TypeOf(part), expected.at("dtype"));
    if (shape.empty()) {
      shape = part.shape;
    } else {
      std::vector<std::int64_t> row = part.shape;
      row.front() = shape.front();
      Same(name + ": shape of a part", row, shape);
      shape.front() += part.Rows();
    }
    for (const double value : ValuesOf(part)) got.push_back(value);
  }
  Same(name + ": shape", shape, expected.at("shape"));
  if (!expected.contains("data")) return;
  const std::vector<double> wanted = ValuesOf(folder.Tensor(expected));
  Same(name + ": number of values", got.size(), wanted.size());
  const double atol = expected.value("atol", 0.0);
  const double rtol = expected.value("rtol", 0.0);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    // Written so that NaN fails too.
    if (!(std::abs(got[i] - wanted[i]) <= atol + rtol * std::abs(wanted[i]))) {
      throw Mismatch(name + ": value " + std::to_string(i) + " is " + std::to_string(got[i]) + ", expected " +
                     std::to_string(wanted[i]));
    }
  }
}

void CheckOptional(const Folder& folder, const std::string& name, const std::vector<Part>& parts,
                   std::optional<Tensor> Part::*field, const json& expected) {
  std::vector<Tensor> tensors;
  for (const Part& part : parts) {
    const auto& tensor = part.*field;
    if (expected.is_null() && tensor) throw Mismatch(name + " is present, expected none");
    if (!expected.is_null() && !tensor) throw Mismatch(name + " is missing");
    if (tensor) tensors.push_back(*tensor);
  }
  if (!expected.is_null()) CheckTensor(folder, name, tensors, expected);
}

// Decodes a PNG file as a tensor of one row.
Tensor PixelsOf(const std::string& file) {
  const latentserve_png::Picture picture = latentserve_png::Read(file);
  Tensor tensor;
  tensor.shape = {1, picture.channels, picture.height, picture.width};
  std::vector<std::uint8_t> planes;
  for (int channel = 0; channel < picture.channels; ++channel) {
    for (std::size_t i = channel; i < picture.levels.size(); i += picture.channels) {
      planes.push_back(picture.levels[i]);
    }
  }
  tensor.values = std::move(planes);
  return tensor;
}

void CheckImages(const Folder& folder, const std::vector<Part>& parts, const json& expected) {
  std::vector<Tensor> tensors;
  for (const Part& part : parts) {
    if (!part.images) throw Mismatch("images are missing");
    if (expected.contains("tensor") && part.images->pixels() != nullptr) {
      tensors.push_back(*part.images->pixels());
    } else if (expected.contains("png") && part.images->files() != nullptr) {
      for (const std::string& file : *part.images->files()) tensors.push_back(PixelsOf(file));
    } else {
      throw Mismatch("images have another form than " + expected.dump());
    }
  }
  CheckTensor(folder, "images", tensors,
              expected.contains("png") ? expected.at("png") : expected.at("tensor"));
}

}  // namespace

void Same(const std::string& name, const json& got, const json& expected) {
  if (got != expected) throw Mismatch(name + " is " + got.dump() + ", expected " + expected.dump());
}

void CheckResult(const Folder& folder, const Case& test, const CallResult& got) {
  const json expected = test.ok();
  if (expected.is_null()) throw Mismatch("the call succeeded, expected " + test.error().dump());
  const auto* parts = std::get_if<std::vector<Part>>(&got);
  if (parts == nullptr) return CheckValue(got, expected);
  if (parts->empty()) throw Mismatch("no reply");
  for (const Part& part : *parts) {
    CheckSignature(part, expected.value("served_by", json()));
    if (expected.contains("seed")) CheckSeed(part, parts->front(), expected.at("seed"));
  }
  if (test.method() == "SampleStream") CheckChunks(test, *parts);
  const std::pair<const char*, std::optional<Tensor> Part::*> fields[] = {
      {"latents", &Part::latents},
      {"log_variance", &Part::log_variance},
      {"squared_error", &Part::squared_error}};
  for (const auto& [name, field] : fields) {
    if (expected.contains(name)) CheckOptional(folder, name, *parts, field, expected.at(name));
  }
  if (expected.contains("images")) CheckImages(folder, *parts, expected.at("images"));
}

}  // namespace conformance
