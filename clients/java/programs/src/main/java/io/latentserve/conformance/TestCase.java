// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.time.Duration;
import java.util.Optional;
import java.util.Set;

/** One case in the format of clients/conformance/README.md. */
record TestCase(JsonObject json) {
  private static final long DEFAULT_DEADLINE_MS = 20_000;
  private static final Set<String> KNOWN =
      Set.of(
          "name",
          "server",
          "rpc",
          "through",
          "request",
          "body",
          "metadata",
          "deadline_ms",
          "retry",
          "cancel_after_ms",
          "stream",
          "expect");

  TestCase {
    KnownFields.check(json, KNOWN);
    KnownFields.check(json.getAsJsonObject("expect"), Set.of("ok", "error"));
  }

  String name() {
    return json.get("name").getAsString();
  }

  String group() {
    return name().substring(0, name().indexOf('/'));
  }

  String server() {
    return json.get("server").getAsString();
  }

  String rpc() {
    return json.get("rpc").getAsString();
  }

  /** The method's name without package and service. */
  String method() {
    return rpc().substring(rpc().lastIndexOf('/') + 1);
  }

  String through() {
    return json.get("through").getAsString();
  }

  CaseRequest request() {
    return new CaseRequest(
        json.has("request") ? json.getAsJsonObject("request") : new JsonObject());
  }

  JsonObject body() {
    return json.getAsJsonObject("body");
  }

  JsonObject metadata() {
    return json.has("metadata") ? json.getAsJsonObject("metadata") : new JsonObject();
  }

  Duration deadline() {
    return Duration.ofMillis(
        json.has("deadline_ms") ? json.get("deadline_ms").getAsLong() : DEFAULT_DEADLINE_MS);
  }

  boolean retry() {
    return json.has("retry") && json.get("retry").getAsBoolean();
  }

  Optional<Duration> cancelAfter() {
    return Optional.ofNullable(json.get("cancel_after_ms"))
        .map(JsonElement::getAsLong)
        .map(Duration::ofMillis);
  }

  /** Number of chunks after which the stream is cancelled; 0 means never. */
  int cancelAfterChunks() {
    return json.has("stream") ? json.getAsJsonObject("stream").get("cancel_after").getAsInt() : 0;
  }

  /** Whether a second call resumes the cancelled stream. */
  boolean resume() {
    return json.has("stream") && json.getAsJsonObject("stream").get("resume").getAsBoolean();
  }

  Optional<JsonObject> ok() {
    return Optional.ofNullable(json.getAsJsonObject("expect").getAsJsonObject("ok"));
  }

  Optional<JsonObject> error() {
    return Optional.ofNullable(json.getAsJsonObject("expect").getAsJsonObject("error"));
  }
}
