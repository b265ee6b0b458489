#ifndef LATENTSERVE_MODELS_H_
#define LATENTSERVE_MODELS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace latentserve {

// Image shape of a model.
struct ImageSpec {
  std::int32_t channels = 0;  // 1 (greyscale) or 3 (RGB)
  std::int32_t height = 0;    // pixels
  std::int32_t width = 0;     // pixels
};

// Latent space of a model.
struct LatentSpec {
  std::int32_t dim = 0;           // number of latents per image
  std::string prior;              // "standard_normal", "gaussian_mixture", or "none" if it cannot sample
  bool has_log_variance = false;  // whether Encode returns a log variance and accepts a seed
  std::int32_t mixture_components = 0;  // components of a gaussian_mixture; 0 for other priors
};

// Likelihood p(x|z), whose mean is the decoded image.
struct Likelihood {
  std::string family;  // "gaussian" or "bernoulli"
  double sigma = 0;    // standard deviation per pixel of images in [0, 1]; 0 unless gaussian
};

// Limits of one call to a model.
struct Limits {
  std::int32_t max_request_rows = 0;  // maximum images or latent vectors in one request
  std::int64_t max_stream_rows = 0;   // maximum images in one stream
  std::int32_t max_batch_rows = 0;    // maximum batch size in rows; larger requests run in several batches
};

// Metric of a model, measured at export.
struct Metric {
  std::string name;
  double value = 0;  // in `unit`
  std::string unit;
  std::optional<double> baseline;  // comparison value
  std::string baseline_name;
  std::int64_t samples = 0;  // number of images in the evaluation
  std::string estimator;
};

// Description of one version of a model.
struct Model {
  std::string name;
  std::int32_t version = 0;
  std::string state;        // "ready", "loading" or "refused"
  std::string reason;       // why the version was refused; empty otherwise
  std::string digest;       // SHA-256 of the manifest
  std::string kind;         // kind of the model, for example "autoencoder", "denoising" or "vae"
  std::string description;  // description in one sentence
  ImageSpec image;
  LatentSpec latent;
  std::vector<std::string> operations;   // a subset of "encode", "decode", "reconstruct", "denoise", "sample"
  std::optional<Likelihood> likelihood;  // absent if the model was not trained with a likelihood
  Limits limits;
  std::string provider;  // ONNX Runtime execution provider; empty until the model is loaded
  std::vector<Metric> metrics;

  // Returns "NAME:VERSION", which selects exactly this version in a request.
  std::string Ref() const { return name + ":" + std::to_string(version); }
};

// All versions of all models, sorted by name, then by version in descending order.
struct ModelList {
  std::vector<Model> models;
  std::string default_model;  // the model of requests that name none; empty if the server has no default
};

// Result of a reload for one version.
struct ReloadOutcome {
  std::string name;
  std::int32_t version = 0;
  std::string action;  // "unchanged", "loaded", "refused" or "removed"
  std::string reason;  // why the version was refused; empty otherwise
};

}  // namespace latentserve

#endif  // LATENTSERVE_MODELS_H_
