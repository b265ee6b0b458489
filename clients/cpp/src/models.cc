#include "latentserve/models.h"

#include <algorithm>
#include <cctype>

#include "call.h"
#include "connection.h"

namespace latentserve {
namespace {

constexpr std::chrono::milliseconds kReloadTimeout{120'000};

// Returns the name of an enum value in this client: "encode" for "OPERATION_ENCODE".
std::string Plain(const std::string& name, const std::string& prefix, int number) {
  if (name.rfind(prefix, 0) != 0) return "unknown (" + std::to_string(number) + ")";
  std::string plain = name.substr(prefix.size());
  std::transform(plain.begin(), plain.end(), plain.begin(), [](unsigned char c) { return std::tolower(c); });
  return plain;
}

Metric FromMessage(const v1::Metric& message) {
  Metric metric;
  metric.name = message.name();
  metric.value = message.value();
  metric.unit = message.unit();
  if (message.has_baseline()) metric.baseline = message.baseline();
  metric.baseline_name = message.baseline_name();
  metric.samples = message.samples();
  metric.estimator = message.estimator();
  return metric;
}

Model FromMessage(const v1::Model& message) {
  Model model;
  model.name = message.name();
  model.version = message.version();
  model.state = Plain(v1::Model::State_Name(message.state()), "STATE_", message.state());
  model.reason = message.reason();
  model.digest = message.digest();
  model.kind = message.kind();
  model.description = message.description();
  model.image = {message.image().channels(), message.image().height(), message.image().width()};
  const v1::LatentSpec& latent = message.latent();
  model.latent = {latent.dim(), latent.prior(), latent.has_log_variance(), latent.mixture_components()};
  for (const int operation : message.operations()) {
    const std::string name = v1::Operation_Name(static_cast<v1::Operation>(operation));
    model.operations.push_back(Plain(name, "OPERATION_", operation));
  }
  if (message.has_likelihood()) {
    model.likelihood = Likelihood{message.likelihood().family(), message.likelihood().sigma()};
  }
  const v1::Limits& limits = message.limits();
  model.limits = {limits.max_request_rows(), limits.max_stream_rows(), limits.max_batch_rows()};
  model.provider = message.provider();
  for (const v1::Metric& metric : message.metrics()) model.metrics.push_back(FromMessage(metric));
  return model;
}

}  // namespace

ModelList Client::ListModels(const CallOptions& call) const {
  const Options& options = connection_->options;
  const v1::ListModelsResponse reply = Unary(options, call, options.timeout, connection_->models.get(),
                                             &v1::ModelService::Stub::ListModels, v1::ListModelsRequest());
  ModelList list;
  for (const v1::Model& model : reply.models()) list.models.push_back(FromMessage(model));
  list.default_model = reply.default_model();
  return list;
}

Model Client::GetModel(const std::string& model, const CallOptions& call) const {
  v1::GetModelRequest message;
  connection_->SetModel(model, message.mutable_model());
  const Options& options = connection_->options;
  return FromMessage(Unary(options, call, options.timeout, connection_->models.get(),
                           &v1::ModelService::Stub::GetModel, message)
                         .model());
}

std::vector<ReloadOutcome> Client::ReloadModels(const std::vector<std::string>& names,
                                                const CallOptions& call) const {
  v1::ReloadModelsRequest message;
  message.mutable_names()->Add(names.begin(), names.end());
  const Options& options = connection_->options;
  const v1::ReloadModelsResponse reply =
      Unary(options, call, std::max(options.timeout, kReloadTimeout), connection_->models.get(),
            &v1::ModelService::Stub::ReloadModels, message);
  std::vector<ReloadOutcome> outcomes;
  for (const v1::ReloadOutcome& outcome : reply.outcomes()) {
    outcomes.push_back({outcome.name(), outcome.version(),
                        Plain(v1::ReloadOutcome::Action_Name(outcome.action()), "ACTION_", outcome.action()),
                        outcome.reason()});
  }
  return outcomes;
}

}  // namespace latentserve
