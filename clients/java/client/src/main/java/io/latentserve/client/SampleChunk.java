// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.latentserve.v1.SampleStreamResponse;
import java.util.Optional;

/**
 * Consecutive images of a stream.
 *
 * @param images the images, in the requested format
 * @param latents of the images, FLOAT32 [n, dim], if requested
 * @param seed unsigned 64-bit: the request's seed, or the one that the server chose
 * @param offset row of the first image in the seed's sequence of samples
 * @param servedBy the model version that served the call
 * @param timings durations of this chunk on the server
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

  /** Returns the offset that resumes after this chunk; see {@link SampleRequest#after}. */
  public long nextOffset() {
    return offset + images.count();
  }
}
