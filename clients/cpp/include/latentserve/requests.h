#ifndef LATENTSERVE_REQUESTS_H_
#define LATENTSERVE_REQUESTS_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "latentserve/images.h"
#include "latentserve/tensor.h"

namespace latentserve {

// The form in which images come back.
enum class Format {
  kFloat32,  // floats in [0, 1]
  kFloat16,  // the bits of binary16, in [0, 1]
  kUint8,    // 0 to 255
  kPng,      // one file per image
};

// Which model answered, and on what.
struct ServedBy {
  std::string name;
  std::int32_t version = 0;
  std::string digest;    // SHA-256 of the model's manifest, which identifies the weights
  std::string provider;  // ONNX Runtime execution provider, for example "CPUExecutionProvider"
};

// Where the time of one call went on the server.
struct Timings {
  std::chrono::nanoseconds queue{0};    // from admission to the start of the first batch
  std::chrono::nanoseconds compute{0};  // what the batches with rows of this call took
  std::int32_t batch_rows = 0;          // rows of the largest of them, those of other callers included
};

// In all requests, `model` is "NAME", "NAME:VERSION", or empty for the client's model.

// Asks for latents.
struct EncodeRequest {
  std::string model;
  Images images;
  std::optional<std::uint64_t> seed;  // absent: the mean; present: a draw from q(z|x)
};

// Latents, in the order of the images.
struct EncodeResult {
  Tensor latents;                      // float32 [n, dim]: the mean, or the draw
  std::optional<Tensor> log_variance;  // float32 [n, dim], where the model has one
  std::optional<std::uint64_t> seed;   // of the draw
  ServedBy served_by;
  Timings timings;
};

// Asks for the images of latents.
struct DecodeRequest {
  std::string model;
  Tensor latents;  // float32 or float16 [n, dim]; see Latents()
  Format format = Format::kFloat32;
};

// Asks for images to be encoded and decoded again.
struct ReconstructRequest {
  std::string model;
  Images images;
  Format format = Format::kFloat32;
};

// Asks for noise to be removed.
struct DenoiseRequest {
  std::string model;
  Images images;  // floats may be from -10 to 10 here
  Format format = Format::kFloat32;
};

// Images, in the order of what was sent.
struct ImagesResult {
  Images images;
  ServedBy served_by;
  Timings timings;
};

// Reconstructions, in the order of the images.
struct ReconstructResult : ImagesResult {
  // Of each image: summed over channels and pixels of [0, 1] images.
  std::vector<float> squared_error;
};

// Asks for images drawn from the model. The latent of image k depends on the prior, the seed, offset + k and
// the temperature alone.
struct SampleRequest {
  std::string model;
  std::int64_t count = 1;             // Sample: at most the model's max_request_rows
  std::optional<std::uint64_t> seed;  // absent: the server draws one and returns it
  std::int64_t offset = 0;            // the first row of the seed's stream
  std::optional<float> temperature;   // 0 to 10; below 1 draws nearer the mode. Absent: 1
  Format format = Format::kFloat32;
  bool include_latents = false;
  std::int32_t chunk_rows = 0;  // images per chunk, for SampleStream; 0: the server chooses
};

// Images drawn from the model.
struct SampleResult : ImagesResult {
  std::uint64_t seed = 0;         // the request's, or the one that the server drew
  std::optional<Tensor> latents;  // float32 [n, dim], what the images were decoded from, where asked for
};

// Some consecutive images of a stream.
struct SampleChunk : SampleResult {
  std::int64_t offset = 0;  // the row of the seed's stream that the first image is

  // Where to resume after this chunk: SampleRequest::offset, with the same seed.
  std::int64_t NextOffset() const { return offset + images.size(); }
};

}  // namespace latentserve

#endif  // LATENTSERVE_REQUESTS_H_
