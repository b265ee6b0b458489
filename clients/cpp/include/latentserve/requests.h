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

// Format of the images in a reply.
enum class Format {
  kFloat32,  // floats in [0, 1]
  kFloat16,  // the bits of binary16, in [0, 1]
  kUint8,    // 0 to 255
  kPng,      // one file per image
};

// Model version that served a call, and its execution provider.
struct ServedBy {
  std::string name;
  std::int32_t version = 0;
  std::string digest;    // SHA-256 of the model's manifest, which identifies the weights
  std::string provider;  // ONNX Runtime execution provider, for example "CPUExecutionProvider"
};

// Durations of one call on the server.
struct Timings {
  std::chrono::nanoseconds queue{0};    // from admission to the start of the first batch
  std::chrono::nanoseconds compute{0};  // duration of the batches with rows of this call
  std::int32_t batch_rows = 0;          // rows of the largest of them, including rows of other calls
};

// In all requests, `model` is "NAME", "NAME:VERSION", or empty for the client's model.

// Request to encode images to latents.
struct EncodeRequest {
  std::string model;
  Images images;
  std::optional<std::uint64_t> seed;  // absent: the mean; present: a sample from q(z|x)
};

// Latents, in the order of the images.
struct EncodeResult {
  Tensor latents;                      // float32 [n, dim]: the mean, or the sample
  std::optional<Tensor> log_variance;  // float32 [n, dim], if the model has one
  std::optional<std::uint64_t> seed;   // of the sample
  ServedBy served_by;
  Timings timings;
};

// Request to decode latents to images.
struct DecodeRequest {
  std::string model;
  Tensor latents;  // float32 or float16 [n, dim]; see Latents()
  Format format = Format::kFloat32;
};

// Request to encode and decode images.
struct ReconstructRequest {
  std::string model;
  Images images;
  Format format = Format::kFloat32;
};

// Request to remove noise from images.
struct DenoiseRequest {
  std::string model;
  Images images;  // floats may range from -10 to 10
  Format format = Format::kFloat32;
};

// Images, in the order of the request.
struct ImagesResult {
  Images images;
  ServedBy served_by;
  Timings timings;
};

// Reconstructions, in the order of the images.
struct ReconstructResult : ImagesResult {
  // Squared error of each image, summed over channels and pixels of images in [0, 1].
  std::vector<float> squared_error;
};

// Request to sample images. The latents of image k depend only on the prior, the seed, offset + k and the
// temperature.
struct SampleRequest {
  std::string model;
  std::int64_t count = 1;             // for Sample, at most the model's max_request_rows
  std::optional<std::uint64_t> seed;  // if absent, the server chooses one, which the reply contains
  std::int64_t offset = 0;            // first row of the seed's sequence of samples
  std::optional<float> temperature;   // 0 to 10; values below 1 sample closer to the mode; absent: 1
  Format format = Format::kFloat32;
  bool include_latents = false;
  std::int32_t chunk_rows = 0;  // images per chunk of SampleStream; 0 lets the server choose
};

// Sampled images.
struct SampleResult : ImagesResult {
  std::uint64_t seed = 0;         // the request's seed, or the one that the server chose
  std::optional<Tensor> latents;  // latents of the images, float32 [n, dim], if requested
};

// Consecutive images of a stream.
struct SampleChunk : SampleResult {
  std::int64_t offset = 0;  // row of the first image in the seed's sequence of samples

  // Returns the SampleRequest::offset that resumes after this chunk, with the same seed.
  std::int64_t NextOffset() const { return offset + images.size(); }
};

}  // namespace latentserve

#endif  // LATENTSERVE_REQUESTS_H_
