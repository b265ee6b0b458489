// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.latentserve.v1.SampleStreamResponse;
import java.util.Optional;

/**
 * Some consecutive images of a stream.
 *
 * @param images the images, in the form that was asked for
 * @param latents FLOAT32 [n, dim], what they were decoded from, where it was asked for
 * @param seed 64 bits without a sign: the request's, or the one that the server drew
 * @param offset the row of the seed's stream that the first image is
 * @param servedBy which model answered
 * @param timings where the time of this chunk went
 */
public record SampleChunk(
    Images images,
    Optional<Tensor> latents,
    long seed,
    long offset,
    ServedBy servedBy,
    Timings timings) {
  static SampleChunk from(SampleStreamResponse reply) {
    return new SampleChunk(
        Images.from(reply.getImages()),
        reply.hasLatents() ? Optional.of(Tensor.from(reply.getLatents(), 2)) : Optional.empty(),
        reply.getSeed(),
        reply.getOffset(),
        ServedBy.from(reply.getServedBy()),
        Timings.from(reply.getTimings()));
  }

  /** Where to resume after this chunk; {@link SampleRequest#after} makes the request. */
  public long nextOffset() {
    return offset + images.count();
  }
}
