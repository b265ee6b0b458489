#ifndef LATENTSERVE_MODELS_H_
#define LATENTSERVE_MODELS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace latentserve {

// Which images a model takes and gives.
struct ImageSpec {
  std::int32_t channels = 0;  // 1 (grey) or 3 (RGB)
  std::int32_t height = 0;    // pixels
  std::int32_t width = 0;     // pixels
};

// What the latents of a model are.
struct LatentSpec {
  std::int32_t dim = 0;                 // values per image
  std::string prior;                    // "standard_normal", "gaussian_mixture", or "none": it cannot sample
  bool has_log_variance = false;        // whether Encode returns one and takes a seed
  std::int32_t mixture_components = 0;  // of a gaussian_mixture; 0 with another prior
};

// p(x|z), with the decoded image as its mean.
struct Likelihood {
  std::string family;  // "gaussian" or "bernoulli"
  double sigma = 0;    // standard deviation per pixel of [0, 1] images; 0 unless gaussian
};

// How much one call may ask of a model.
struct Limits {
  std::int32_t max_request_rows = 0;  // images or latents in one request
  std::int64_t max_stream_rows = 0;   // images in one stream
  std::int32_t max_batch_rows = 0;    // rows of one batch of the engine; larger requests run in several
};

// One figure that was measured when the model was exported.
struct Metric {
  std::string name;
  double value = 0;  // in `unit`
  std::string unit;
  std::optional<double> baseline;  // what the value is to be compared with
  std::string baseline_name;
  std::int64_t samples = 0;  // images it was measured on
  std::string estimator;
};

// One version of one model.
struct Model {
  std::string name;
  std::int32_t version = 0;
  std::string state;        // "ready", "loading" or "refused"
  std::string reason;       // why it was refused; empty otherwise
  std::string digest;       // SHA-256 of its manifest
  std::string kind;         // for example "autoencoder", "denoising", "vae"
  std::string description;  // one sentence
  ImageSpec image;
  LatentSpec latent;
  std::vector<std::string> operations;   // of "encode", "decode", "reconstruct", "denoise", "sample"
  std::optional<Likelihood> likelihood;  // absent where it was not trained as one
  Limits limits;
  std::string provider;  // ONNX Runtime execution provider; empty until loaded
  std::vector<Metric> metrics;

  // What names exactly this version in a request.
  std::string Ref() const { return name + ":" + std::to_string(version); }
};

// All versions of all models, by name, then by version from high to low.
struct ModelList {
  std::vector<Model> models;
  std::string default_model;  // the name that a request without a model uses; empty where there is none
};

// What became of one version in a reload.
struct ReloadOutcome {
  std::string name;
  std::int32_t version = 0;
  std::string action;  // "unchanged", "loaded", "refused" or "removed"
  std::string reason;  // why it was refused; empty otherwise
};

}  // namespace latentserve

#endif  // LATENTSERVE_MODELS_H_
