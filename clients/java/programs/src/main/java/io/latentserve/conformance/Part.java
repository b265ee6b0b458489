// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.conformance;

import io.latentserve.client.EncodeResult;
import io.latentserve.client.Images;
import io.latentserve.client.ImagesResult;
import io.latentserve.client.ReconstructResult;
import io.latentserve.client.SampleChunk;
import io.latentserve.client.SampleResult;
import io.latentserve.client.ServedBy;
import io.latentserve.client.Shape;
import io.latentserve.client.Timings;
import io.latentserve.v1.DataType;
import io.latentserve.v1.SampleResponse;
import io.latentserve.v1.SampleStreamResponse;
import io.latentserve.v1.Tensor;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;

/** Reply of GenerativeService, or one message of a stream. */
record Part(
    Optional<Images> images,
    Optional<Values> latents,
    Optional<Values> logVariance,
    Optional<Values> squaredError,
    OptionalLong seed,
    long offset,
    ServedBy servedBy,
    Timings timings) {
  static Part of(EncodeResult result) {
    return new Part(
        Optional.empty(),
        Optional.of(Values.of(result.latents())),
        result.logVariance().map(Values::of),
        Optional.empty(),
        result.seed(),
        0,
        result.servedBy(),
        result.timings());
  }

  static Part of(ImagesResult result) {
    return new Part(
        Optional.of(result.images()),
        Optional.empty(),
        Optional.empty(),
        Optional.empty(),
        OptionalLong.empty(),
        0,
        result.servedBy(),
        result.timings());
  }

  static Part of(ReconstructResult result) {
    double[] errors = result.squaredError().stream().mapToDouble(Float::doubleValue).toArray();
    Values values = new Values("FLOAT32", List.of((long) errors.length), errors);
    return new Part(
        Optional.of(result.images()),
        Optional.empty(),
        Optional.empty(),
        Optional.of(values),
        OptionalLong.empty(),
        0,
        result.servedBy(),
        result.timings());
  }

  static Part of(SampleResult result) {
    return new Part(
        Optional.of(result.images()),
        result.latents().map(Values::of),
        Optional.empty(),
        Optional.empty(),
        OptionalLong.of(result.seed()),
        0,
        result.servedBy(),
        result.timings());
  }

  static Part of(SampleChunk chunk) {
    return new Part(
        Optional.of(chunk.images()),
        chunk.latents().map(Values::of),
        Optional.empty(),
        Optional.empty(),
        OptionalLong.of(chunk.seed()),
        chunk.offset(),
        chunk.servedBy(),
        chunk.timings());
  }

  static Part of(SampleResponse reply) {
    return of(
        reply.getImages(),
        reply.hasLatents() ? Optional.of(reply.getLatents()) : Optional.empty(),
        reply.getSeed(),
        0,
        reply.getServedBy(),
        reply.getTimings());
  }

  static Part of(SampleStreamResponse reply) {
    return of(
        reply.getImages(),
        reply.hasLatents() ? Optional.of(reply.getLatents()) : Optional.empty(),
        reply.getSeed(),
        reply.getOffset(),
        reply.getServedBy(),
        reply.getTimings());
  }

  private static Part of(
      io.latentserve.v1.Images images,
      Optional<Tensor> latents,
      long seed,
      long offset,
      io.latentserve.v1.ServedBy by,
      io.latentserve.v1.Timings timings) {
    return new Part(
        Optional.of(imagesOf(images)),
        latents.map(tensor -> Values.of(dtype(tensor), tensor.getShapeList(), bytesOf(tensor))),
        Optional.empty(),
        Optional.empty(),
        OptionalLong.of(seed),
        offset,
        new ServedBy(by.getName(), by.getVersion(), by.getDigest(), by.getProvider()),
        new Timings(
            Duration.ofNanos(timings.getQueueNs()),
            Duration.ofNanos(timings.getComputeNs()),
            timings.getBatchRows()));
  }

  private static Images imagesOf(io.latentserve.v1.Images message) {
    Tensor tensor = message.getTensor();
    if (tensor.getDataType() != DataType.DATA_TYPE_FLOAT32 || tensor.getShapeCount() != 4) {
      throw new Mismatch("the images are not FLOAT32 of 4 dimensions");
    }
    List<Integer> shape = tensor.getShapeList().stream().map(Math::toIntExact).toList();
    return Images.ofFloats(
        Values.floats(bytesOf(tensor)),
        new Shape(shape.get(0), shape.get(1), shape.get(2), shape.get(3)));
  }

  private static String dtype(Tensor tensor) {
    return tensor.getDataType().name().replaceFirst("^DATA_TYPE_", "");
  }

  private static byte[] bytesOf(Tensor tensor) {
    return tensor.getData().toByteArray();
  }

  /** The number of images. */
  int rows() {
    return images.map(Images::count).orElse(0);
  }
}
