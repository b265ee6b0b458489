#include <algorithm>
#include <cctype>

#include "checks.h"

namespace conformance {
namespace {

std::string Upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::toupper(c); });
  return text;
}

json Describe(const latentserve::Metric& metric) {
  json described = {{"name", metric.name},
                    {"value", metric.value},
                    {"unit", metric.unit},
                    {"baseline", nullptr},
                    {"baseline_name", metric.baseline_name},
                    {"samples", metric.samples},
                    {"estimator", metric.estimator}};
  if (metric.baseline) described["baseline"] = *metric.baseline;
  return described;
}

// Returns a model as JSON with the names of the .proto files.
json Describe(const latentserve::Model& model) {
  json operations = json::array();
  for (const std::string& operation : model.operations) operations.push_back(Upper(operation));
  auto sorted = model.metrics;
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  json metrics = json::array();
  for (const auto& metric : sorted) metrics.push_back(Describe(metric));
  json likelihood;
  if (model.likelihood)
    likelihood = {{"family", model.likelihood->family}, {"sigma", model.likelihood->sigma}};
  const auto& [channels, height, width] = model.image;
  const auto& latent = model.latent;
  const auto& limits = model.limits;
  return {{"name", model.name},
          {"version", model.version},
          {"state", Upper(model.state)},
          {"reason", model.reason},
          {"digest", model.digest},
          {"kind", model.kind},
          {"description", model.description},
          {"image", {{"channels", channels}, {"height", height}, {"width", width}}},
          {"latent",
           {{"dim", latent.dim},
            {"prior", latent.prior},
            {"has_log_variance", latent.has_log_variance},
            {"mixture_components", latent.mixture_components}}},
          {"operations", operations},
          {"likelihood", likelihood},
          {"limits",
           {{"max_request_rows", limits.max_request_rows},
            {"max_stream_rows", limits.max_stream_rows},
            {"max_batch_rows", limits.max_batch_rows}}},
          {"provider", model.provider},
          {"metrics", metrics}};
}

// Compares only the expected fields.
void CheckGiven(const json& got, const json& expected) {
  for (const auto& item : expected.items()) {
    if (!got.contains(item.key())) throw Mismatch("this runner does not know " + item.key());
    Same(item.key(), got.at(item.key()), item.value());
  }
}

}  // namespace

void CheckValue(const CallResult& got, const json& expected) {
  if (const auto* status = std::get_if<latentserve::HealthStatus>(&got)) {
    Same("status", latentserve::HealthName(*status), expected.at("status"));
  } else if (const auto* model = std::get_if<latentserve::Model>(&got)) {
    CheckGiven(Describe(*model), expected.at("model"));
  } else if (const auto* outcomes = std::get_if<std::vector<latentserve::ReloadOutcome>>(&got)) {
    json described = json::array();
    for (const auto& outcome : *outcomes) {
      described.push_back({{"name", outcome.name},
                           {"version", outcome.version},
                           {"action", Upper(outcome.action)},
                           {"reason", outcome.reason}});
    }
    Same("outcomes", described, expected.at("outcomes"));
  } else {
    const auto& list = std::get<latentserve::ModelList>(got);
    const json& wanted = expected.at("models");
    Same("number of models", list.models.size(), wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i) CheckGiven(Describe(list.models[i]), wanted[i]);
    Same("default_model", list.default_model, expected.at("default_model"));
  }
}

}  // namespace conformance
