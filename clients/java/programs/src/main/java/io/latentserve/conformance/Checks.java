// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import io.latentserve.client.Images;
import io.latentserve.client.ServedBy;
import io.latentserve.client.Timings;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;
import java.util.function.Function;

/** Checks of the result of a call against its case. */
record Checks(CaseFolder folder) {
  private static final int MAX_BATCH_ROWS = 64;
  private static final Set<String> OF_PARTS =
      Set.of("images", "latents", "log_variance", "squared_error", "seed", "served_by", "chunks");

  void check(TestCase test, CallResult result) {
    JsonObject expected =
        test.ok()
            .orElseThrow(
                () -> new Mismatch("the call succeeded, expected " + test.error().orElse(null)));
    if (result.value() != null) {
      JsonReplies.check(test.method(), result.value(), expected);
      return;
    }
    KnownFields.check(expected, OF_PARTS);
    List<Part> parts = result.parts();
    if (parts.isEmpty()) {
      throw new Mismatch("no reply");
    }
    for (Part part : parts) {
      servedBy(part.servedBy(), expected);
      timings(part.timings());
      seed(part.seed(), parts.get(0).seed(), expected);
    }
    if (test.method().equals("SampleStream")) {
      chunks(test, parts, expected);
    }
    tensor("latents", parts, Part::latents, expected);
    tensor("log_variance", parts, Part::logVariance, expected);
    tensor("squared_error", parts, Part::squaredError, expected);
    if (expected.has("images")) {
      images(parts, expected.getAsJsonObject("images"));
    }
  }

  private static void servedBy(ServedBy got, JsonObject expected) {
    if (expected.has("served_by")) {
      JsonObject have = new JsonObject();
      have.addProperty("name", got.name());
      have.addProperty("version", got.version());
      have.addProperty("digest", got.digest());
      JsonReplies.check("served_by", have, expected.get("served_by"));
    }
    if (got.provider().isEmpty()) {
      throw new Mismatch("served_by.provider is empty");
    }
  }

  private static void timings(Timings got) {
    if (got.queue().isNegative()
        || got.compute().isNegative()
        || got.compute().isZero()
        || got.batchRows() < 1
        || got.batchRows() > MAX_BATCH_ROWS) {
      throw new Mismatch("the timings are " + got);
    }
  }

  private static void seed(OptionalLong got, OptionalLong first, JsonObject expected) {
    if (!expected.has("seed")) {
      return;
    }
    JsonElement wanted = expected.get("seed");
    boolean right;
    if (wanted.isJsonNull()) {
      right = got.isEmpty();
    } else if (wanted.getAsString().equals("any")) {
      right = got.isPresent() && got.equals(first);
    } else {
      right =
          got.isPresent() && Long.toUnsignedString(got.getAsLong()).equals(wanted.getAsString());
    }
    if (!right) {
      throw new Mismatch("the seed is " + got + ", expected " + wanted);
    }
  }

  private static void chunks(TestCase test, List<Part> parts, JsonObject expected) {
    long next = test.request().offset();
    JsonArray got = new JsonArray();
    for (Part part : parts) {
      if (part.offset() != next) {
        throw new Mismatch("a chunk has the offset " + part.offset() + ", expected " + next);
      }
      long rows = part.rows();
      if (part.latents().isPresent() && part.latents().get().rows() != rows) {
        throw new Mismatch("a chunk has different numbers of images and latent vectors");
      }
      JsonObject chunk = new JsonObject();
      chunk.addProperty("offset", Long.toString(part.offset()));
      chunk.add("rows", new JsonPrimitive(rows));
      got.add(chunk);
      next += rows;
    }
    if (expected.has("chunks")) {
      JsonReplies.check("chunks", got, expected.get("chunks"));
    }
    long rows = next - test.request().offset();
    boolean whole = test.cancelAfterChunks() == 0 || test.resume();
    if (whole && rows != test.request().count()) {
      throw new Mismatch(
          "the chunks have " + rows + " rows in total, expected " + test.request().count());
    }
  }

  private void tensor(
      String name, List<Part> parts, Function<Part, Optional<Values>> choose, JsonObject expected) {
    if (!expected.has(name)) {
      return;
    }
    boolean wanted = !expected.get(name).isJsonNull();
    List<Values> values = new ArrayList<>();
    for (Part part : parts) {
      Optional<Values> one = choose.apply(part);
      if (one.isPresent() != wanted) {
        throw new Mismatch(name + (wanted ? " is missing" : " is present, expected none"));
      }
      one.ifPresent(values::add);
    }
    if (wanted) {
      compare(name, values, expected.getAsJsonObject(name));
    }
  }

  private void images(List<Part> parts, JsonObject expected) {
    KnownFields.check(expected, Set.of("tensor", "png"));
    boolean png = expected.has("png");
    List<Values> values = new ArrayList<>();
    for (Part part : parts) {
      Images images = part.images().orElseThrow(() -> new Mismatch("the images are missing"));
      if (images.isFiles() != png) {
        throw new Mismatch("images are " + images + ", expected " + expected);
      }
      for (int k = 0; png && k < images.count(); k++) {
        byte[] file = images.file(k);
        if (file.length < 4 || file[0] != (byte) 0x89 || file[1] != 'P' || file[3] != 'G') {
          throw new Mismatch("file " + k + " is not a PNG file");
        }
      }
      values.add(Values.of(images.pixels()));
    }
    compare("images", values, expected.getAsJsonObject(png ? "png" : "tensor"));
  }

  private void compare(String name, List<Values> values, JsonObject expected) {
    try {
      Values.joined(values).check(new CaseTensor(expected), folder);
    } catch (Mismatch mismatch) {
      throw new Mismatch(name + ": " + mismatch.getMessage());
    }
  }
}
