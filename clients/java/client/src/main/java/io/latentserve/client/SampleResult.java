// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.latentserve.v1.SampleResponse;
import java.util.Optional;

/**
 * Sampled images.
 *
 * @param images the images, in the requested format
 * @param latents of the images, FLOAT32 [n, dim], if requested
 * @param seed unsigned 64-bit: the request's seed, or the one that the server chose
 * @param servedBy the model version that served the call
 * @param timings durations on the server
 */
public record SampleResult(
    Images images, Optional<Tensor> latents, long seed, ServedBy servedBy, Timings timings) {
  static SampleResult from(SampleResponse reply) {
    return new SampleResult(
        Images.from(reply.getImages()),
        reply.hasLatents() ? Optional.of(Tensor.from(reply.getLatents(), 2)) : Optional.empty(),
        reply.getSeed(),
        ServedBy.from(reply.getServedBy()),
        Timings.from(reply.getTimings()));
  }
}
