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

/** Replies of ModelService and health as JSON in the format of the cases, and their checks. */
final class JsonReplies {
  private JsonReplies() {}

  static JsonObject models(ModelList list) {
    JsonObject reply = new JsonObject();
    reply.add("models", array(list.models(), JsonReplies::described));
    reply.addProperty("default_model", list.defaultModel());
    return reply;
  }

  static JsonObject model(Model model) {
    JsonObject reply = new JsonObject();
    reply.add("model", described(model));
    return reply;
  }

  static JsonObject outcomes(List<ReloadOutcome> outcomes) {
    JsonObject reply = new JsonObject();
    reply.add(
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
    return reply;
  }

  static JsonObject status(HealthStatus status) {
    JsonObject reply = new JsonObject();
    reply.addProperty("status", status.name());
    return reply;
  }

  /** Compares only the expected keys. */
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
      // A key that this runner does not know has no value and fails here.
      throw new Mismatch(name + " is " + got + ", expected " + expected);
    }
  }

  private static JsonObject described(Model model) {
    JsonObject reply = new JsonObject();
    reply.addProperty("name", model.name());
    reply.addProperty("version", model.version());
    reply.addProperty("state", model.state().name());
    reply.addProperty("reason", model.reason());
    reply.addProperty("digest", model.digest());
    reply.addProperty("kind", model.kind());
    reply.addProperty("description", model.description());
    JsonObject image = new JsonObject();
    image.addProperty("channels", model.image().channels());
    image.addProperty("height", model.image().height());
    image.addProperty("width", model.image().width());
    reply.add("image", image);
    JsonObject latent = new JsonObject();
    latent.addProperty("dim", model.latent().dim());
    latent.addProperty("prior", model.latent().prior());
    latent.addProperty("has_log_variance", model.latent().hasLogVariance());
    latent.addProperty("mixture_components", model.latent().mixtureComponents());
    reply.add("latent", latent);
    reply.add("operations", array(model.operations(), one -> new JsonPrimitive(one.name())));
    reply.add(
        "likelihood", model.likelihood().map(JsonReplies::described).orElse(JsonNull.INSTANCE));
    JsonObject limits = new JsonObject();
    limits.addProperty("max_request_rows", model.limits().maxRequestRows());
    limits.addProperty("max_stream_rows", model.limits().maxStreamRows());
    limits.addProperty("max_batch_rows", model.limits().maxBatchRows());
    reply.add("limits", limits);
    reply.addProperty("provider", model.provider());
    List<Model.Metric> metrics =
        model.metrics().stream().sorted(Comparator.comparing(Model.Metric::name)).toList();
    reply.add("metrics", array(metrics, JsonReplies::described));
    return reply;
  }

  private static JsonElement described(Model.Likelihood likelihood) {
    JsonObject reply = new JsonObject();
    reply.addProperty("family", likelihood.family());
    reply.addProperty("sigma", likelihood.sigma());
    return reply;
  }

  private static JsonElement described(Model.Metric metric) {
    JsonObject reply = new JsonObject();
    reply.addProperty("name", metric.name());
    reply.addProperty("value", metric.value());
    reply.addProperty("unit", metric.unit());
    reply.add(
        "baseline",
        metric.baseline().isPresent()
            ? new JsonPrimitive(metric.baseline().getAsDouble())
            : JsonNull.INSTANCE);
    reply.addProperty("baseline_name", metric.baselineName());
    reply.addProperty("samples", metric.samples());
    reply.addProperty("estimator", metric.estimator());
    return reply;
  }

  private static <T> JsonArray array(List<T> items, Function<T, JsonElement> describe) {
    JsonArray array = new JsonArray();
    items.forEach(item -> array.add(describe.apply(item)));
    return array;
  }
}
