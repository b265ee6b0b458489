// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import com.google.gson.JsonObject;
import io.grpc.Metadata;
import io.grpc.Status;
import io.latentserve.client.LatentserveException;
import io.latentserve.client.Violation;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/** Checks of the error of a call against its case. */
final class Failures {
  private static final Metadata.Key<String> PUSHBACK =
      Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);
  private static final Set<String> KNOWN =
      Set.of(
          "code",
          "codes",
          "reason",
          "domain",
          "violations",
          "retry_info",
          "metadata_keys",
          "metadata",
          "message_lacks");

  private Failures() {}

  static void check(TestCase test, LatentserveException failure) {
    JsonObject expected =
        test.error().orElseThrow(() -> new Mismatch("failed with " + failure.getMessage()));
    KnownFields.check(expected, KNOWN);
    List<String> codes =
        expected.has("codes")
            ? CaseRequest.texts(expected, "codes")
            : List.of(expected.get("code").getAsString());
    if (!codes.contains(failure.code().name())) {
      throw new Mismatch("failed with " + failure.getMessage() + ", expected " + codes);
    }
    message(test, failure);
    if (expected.has("reason")) {
      details(failure, expected);
      retry(test, failure, expected.get("retry_info").getAsBoolean());
    }
  }

  private static void message(TestCase test, LatentserveException failure) {
    // The client replaces an empty message, so check the message of the status.
    String text =
        failure.getCause() == null
            ? failure.description()
            : Status.fromThrowable(failure.getCause()).getDescription();
    boolean mayBeEmpty =
        failure.code() == Status.Code.CANCELLED
            || failure.code() == Status.Code.DEADLINE_EXCEEDED
            || test.rpc().startsWith("grpc.health.");
    if ((text == null || text.isEmpty()) && !mayBeEmpty) {
      throw new Mismatch("the error has no message");
    }
  }

  private static void details(LatentserveException failure, JsonObject expected) {
    same("reason", failure.reason(), expected.get("reason").getAsString());
    same("domain", failure.domain(), expected.get("domain").getAsString());
    List<String> fields = new ArrayList<>();
    for (Violation violation : failure.violations()) {
      if (violation.description().isEmpty()) {
        throw new Mismatch("the violation of " + violation.field() + " has no description");
      }
      fields.add(violation.field());
    }
    same("violations", fields, CaseRequest.texts(expected, "violations"));
    for (String key : CaseRequest.texts(expected, "metadata_keys")) {
      if (failure.metadata().getOrDefault(key, "").isEmpty()) {
        throw new Mismatch("the error's metadata lacks " + key + ": " + failure.metadata());
      }
    }
    if (expected.has("metadata")) {
      JsonObject metadata = expected.getAsJsonObject("metadata");
      for (String key : metadata.keySet()) {
        same("metadata " + key, failure.metadata().get(key), metadata.get(key).getAsString());
      }
    }
    for (String text : CaseRequest.texts(expected, "message_lacks")) {
      if (failure.getMessage().contains(text)) {
        throw new Mismatch("the message contains \"" + text + "\": " + failure.getMessage());
      }
    }
  }

  private static void retry(TestCase test, LatentserveException failure, boolean wanted) {
    boolean has =
        failure.retryDelay().filter(delay -> delay.compareTo(Duration.ZERO) > 0).isPresent();
    if (has != wanted || failure.retryDelay().isPresent() != wanted) {
      throw new Mismatch(
          "the retry delay is " + failure.retryDelay() + ", expected a delay: " + wanted);
    }
    if (!test.through().equals("stub")) {
      return;
    }
    List<String> pushback = new ArrayList<>();
    Metadata trailers = Status.trailersFromThrowable(failure.getCause());
    if (trailers != null && trailers.getAll(PUSHBACK) != null) {
      trailers.getAll(PUSHBACK).forEach(pushback::add);
    }
    same(
        "grpc-retry-pushback-ms",
        pushback,
        failure
            .retryDelay()
            .map(delay -> List.of(Long.toString(delay.toMillis())))
            .orElse(List.of()));
  }

  private static void same(String name, Object got, Object wanted) {
    if (!wanted.equals(got)) {
      throw new Mismatch("the " + name + " is " + got + ", expected " + wanted);
    }
  }
}
