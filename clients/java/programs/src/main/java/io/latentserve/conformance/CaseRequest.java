// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import io.latentserve.client.Format;
import io.latentserve.client.SampleRequest;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;

/** Request of a case. */
record CaseRequest(JsonObject json) {
  private static final Set<String> KNOWN =
      Set.of(
          "model",
          "images",
          "latents",
          "output_format",
          "count",
          "seed",
          "offset",
          "temperature",
          "include_latents",
          "chunk_rows",
          "service",
          "names");

  CaseRequest {
    KnownFields.check(json, KNOWN);
  }

  /** The model as an argument of the client: "", NAME or NAME:VERSION. */
  String model() {
    return modelVersion() == 0 ? modelName() : modelName() + ":" + modelVersion();
  }

  boolean hasModel() {
    return json.has("model");
  }

  String modelName() {
    return hasModel() ? text(json.getAsJsonObject("model"), "name", "") : "";
  }

  int modelVersion() {
    return hasModel() ? Integer.parseInt(text(json.getAsJsonObject("model"), "version", "0")) : 0;
  }

  Optional<CaseTensor> imageTensor() {
    return Optional.ofNullable(json.getAsJsonObject("images"))
        .map(images -> images.getAsJsonObject("tensor"))
        .map(CaseTensor::new);
  }

  /** The image files; empty if the images are not files. */
  List<String> imageFiles() {
    return json.has("images") ? texts(json.getAsJsonObject("images"), "encoded") : List.of();
  }

  boolean hasImages() {
    return json.has("images");
  }

  Optional<CaseTensor> latents() {
    return Optional.ofNullable(json.getAsJsonObject("latents")).map(CaseTensor::new);
  }

  /** The enum's name without prefix, a number, or "". */
  String outputFormat() {
    return text(json, "output_format", "");
  }

  Format format() {
    return outputFormat().isEmpty() ? Format.FLOAT32 : Format.valueOf(outputFormat());
  }

  long count() {
    return Long.parseLong(text(json, "count", "0"));
  }

  OptionalLong seed() {
    return json.has("seed")
        ? OptionalLong.of(Long.parseUnsignedLong(json.get("seed").getAsString()))
        : OptionalLong.empty();
  }

  long offset() {
    return Long.parseLong(text(json, "offset", "0"));
  }

  Optional<Float> temperature() {
    // parseFloat also accepts the string "NaN".
    return Optional.ofNullable(json.get("temperature"))
        .map(JsonElement::getAsString)
        .map(Float::parseFloat);
  }

  boolean includeLatents() {
    return Boolean.parseBoolean(text(json, "include_latents", "false"));
  }

  int chunkRows() {
    return Integer.parseInt(text(json, "chunk_rows", "0"));
  }

  String service() {
    return text(json, "service", "");
  }

  List<String> names() {
    return texts(json, "names");
  }

  SampleRequest sample() {
    return new SampleRequest(
        count(), seed(), offset(), temperature(), format(), includeLatents(), chunkRows());
  }

  private static String text(JsonObject object, String key, String absent) {
    return object.has(key) ? object.get(key).getAsString() : absent;
  }

  static List<String> texts(JsonObject object, String key) {
    List<String> texts = new ArrayList<>();
    if (object.has(key)) {
      object.getAsJsonArray(key).forEach(text -> texts.add(text.getAsString()));
    }
    return texts;
  }
}
