// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import io.latentserve.client.HealthStatus;
import io.latentserve.client.Model;
import io.latentserve.client.ModelList;
import io.latentserve.client.ReloadOutcome;
import java.util.Comparator;
import java.util.List;
import java.util.function.Function;

/** What ModelService and health say, in the words of the cases, and whether it is expected. */
final class Said {
  private Said() {}

  static JsonObject models(ModelList list) {
    JsonObject said = new JsonObject();
    said.add("models", array(list.models(), Said::described));
    said.addProperty("default_model", list.defaultModel());
    return said;
  }

  static JsonObject model(Model model) {
    JsonObject said = new JsonObject();
    said.add("model", described(model));
    return said;
  }

  static JsonObject outcomes(List<ReloadOutcome> outcomes) {
    JsonObject said = new JsonObject();
    said.add(
        "outcomes",
        array(
            outcomes,
            outcome -> {
              JsonObject one = new JsonObject();
              one.addProperty("name", outcome.name());
              one.addProperty("version", outcome.version());
              one.addProperty("action", outcome.action().name());
              one.addProperty("reason", outcome.reason());
              return one;
            }));
    return said;
  }

  static JsonObject status(HealthStatus status) {
    JsonObject said = new JsonObject();
    said.addProperty("status", status.name());
    return said;
  }

  /** Compares every key that is expected, and nothing else. */
  static void check(String name, JsonElement got, JsonElement expected) {
    if (expected.isJsonObject() && got != null && got.isJsonObject()) {
      for (String key : expected.getAsJsonObject().keySet()) {
        check(
            name + "." + key, got.getAsJsonObject().get(key), expected.getAsJsonObject().get(key));
      }
    } else if (expected.isJsonArray() && got != null && got.isJsonArray()) {
      JsonArray have = got.getAsJsonArray();
      JsonArray want = expected.getAsJsonArray();
      if (have.size() != want.size()) {
        throw new Mismatch(have.size() + " of " + name + ", expected " + want.size());
      }
      for (int i = 0; i < want.size(); i++) {
        check(name + "[" + i + "]", have.get(i), want.get(i));
      }
    } else if (!expected.equals(got)) {
      // Also a key that this runner does not know: then it has nothing.
      throw new Mismatch(name + " is " + got + ", expected " + expected);
    }
  }

  private static JsonObject described(Model model) {
    JsonObject said = new JsonObject();
    said.addProperty("name", model.name());
    said.addProperty("version", model.version());
    said.addProperty("state", model.state().name());
    said.addProperty("reason", model.reason());
    said.addProperty("digest", model.digest());
    said.addProperty("kind", model.kind());
    said.addProperty("description", model.description());
    JsonObject image = new JsonObject();
    image.addProperty("channels", model.image().channels());
    image.addProperty("height", model.image().height());
    image.addProperty("width", model.image().width());
    said.add("image", image);
    JsonObject latent = new JsonObject();
    latent.addProperty("dim", model.latent().dim());
    latent.addProperty("prior", model.latent().prior());
    latent.addProperty("has_log_variance", model.latent().hasLogVariance());
    latent.addProperty("mixture_components", model.latent().mixtureComponents());
    said.add("latent", latent);
    said.add("operations", array(model.operations(), one -> new JsonPrimitive(one.name())));
    said.add("likelihood", model.likelihood().map(Said::described).orElse(JsonNull.INSTANCE));
    JsonObject limits = new JsonObject();
    limits.addProperty("max_request_rows", model.limits().maxRequestRows());
    limits.addProperty("max_stream_rows", model.limits().maxStreamRows());
    limits.addProperty("max_batch_rows", model.limits().maxBatchRows());
    said.add("limits", limits);
    said.addProperty("provider", model.provider());
    List<Model.Metric> metrics =
        model.metrics().stream().sorted(Comparator.comparing(Model.Metric::name)).toList();
    said.add("metrics", array(metrics, Said::described));
    return said;
  }

  private static JsonElement described(Model.Likelihood likelihood) {
    JsonObject said = new JsonObject();
    said.addProperty("family", likelihood.family());
    said.addProperty("sigma", likelihood.sigma());
    return said;
  }

  private static JsonElement described(Model.Metric metric) {
    JsonObject said = new JsonObject();
    said.addProperty("name", metric.name());
    said.addProperty("value", metric.value());
    said.addProperty("unit", metric.unit());
    said.add(
        "baseline",
        metric.baseline().isPresent()
            ? new JsonPrimitive(metric.baseline().getAsDouble())
            : JsonNull.INSTANCE);
    said.addProperty("baseline_name", metric.baselineName());
    said.addProperty("samples", metric.samples());
    said.addProperty("estimator", metric.estimator());
    return said;
  }

  private static <T> JsonArray array(List<T> items, Function<T, JsonElement> describe) {
    JsonArray array = new JsonArray();
    items.forEach(item -> array.add(describe.apply(item)));
    return array;
  }
}
