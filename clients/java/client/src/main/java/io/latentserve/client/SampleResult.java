// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.latentserve.v1.SampleResponse;
import java.util.Optional;

/**
 * Images drawn from the model.
 *
 * @param images the images, in the form that was asked for
 * @param latents FLOAT32 [n, dim], what they were decoded from, where it was asked for
 * @param seed 64 bits without a sign: the request's, or the one that the server drew
 * @param servedBy which model answered
 * @param timings where the time went
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
