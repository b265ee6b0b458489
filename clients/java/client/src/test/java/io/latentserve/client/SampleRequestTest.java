// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.latentserve.v1.ModelRef;
import java.time.Duration;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.function.Supplier;
import org.junit.jupiter.api.Test;

final class SampleRequestTest {
  private static final ModelRef REF = ModelRef.getDefaultInstance();

  private static void refused(String field, Supplier<SampleRequest> request) {
    LatentserveException failure = assertThrows(LatentserveException.class, request::get);
    assertEquals(field, failure.violations().get(0).field());
  }

  @Test
  void absentFieldsAreNotSent() {
    io.latentserve.v1.SampleRequest message = SampleRequest.of(3).toMessage(REF);
    assertEquals(3, message.getCount());
    assertFalse(message.hasSeed());
    assertFalse(message.hasTemperature());
  }

  @Test
  void zeroIsSent() {
    SampleRequest request = SampleRequest.of(1).withSeed(0).withTemperature(0);
    assertTrue(request.toMessage(REF).hasSeed());
    assertTrue(request.toMessage(REF).hasTemperature());
    assertTrue(request.toStreamMessage(REF).hasTemperature());
  }

  @Test
  void invalidValuesAreRefused() {
    refused("count", () -> SampleRequest.of(0));
    refused("offset", () -> SampleRequest.of(1).withOffset(-1));
    refused("offset", () -> SampleRequest.of(1).withOffset((1L << 62) + 1));
    refused("temperature", () -> SampleRequest.of(1).withTemperature(-0.1f));
    refused("temperature", () -> SampleRequest.of(1).withTemperature(10.1f));
    refused("temperature", () -> SampleRequest.of(1).withTemperature(Float.NaN));
    refused("chunk_rows", () -> SampleRequest.of(1).withChunkRows(-1));
    SampleRequest many = SampleRequest.of(1L << 31).withOffset(1L << 62);
    assertThrows(LatentserveException.class, () -> many.toMessage(REF));
    assertEquals(1L << 31, many.toStreamMessage(REF).getCount());
  }

  @Test
  void afterReturnsTheRemainingImages() {
    SampleRequest request = SampleRequest.of(5).withOffset(10).withFormat(Format.PNG).withLatents();
    SampleRequest rest = request.after(chunk(12)).orElseThrow();
    assertEquals(2, rest.count());
    assertEquals(13, rest.offset());
    assertEquals(OptionalLong.of(-1), rest.seed());
    assertEquals(Format.PNG, rest.format());
    assertTrue(rest.includeLatents());
    assertEquals(Optional.empty(), request.after(chunk(14)));
  }

  private static SampleChunk chunk(long offset) {
    return new SampleChunk(
        TestServer.image(0),
        Optional.empty(),
        -1,
        offset,
        new ServedBy("m", 1, "d", "p"),
        new Timings(Duration.ZERO, Duration.ZERO, 1));
  }
}
