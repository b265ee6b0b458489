// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.latentserve.v1.EncodeResponse;
import java.util.Optional;
import java.util.OptionalLong;

/**
 * Latents of images, in their order.
 *
 * @param latents FLOAT32 [n, dim]: the mean of q(z|x), or a sample if the request had a seed
 * @param logVariance FLOAT32 [n, dim]: natural logarithm of the variance, if the model has one
 * @param seed of the sample; absent if the latents are the mean
 * @param servedBy the model version that served the call
 * @param timings durations on the server
 */
public record EncodeResult(
    Tensor latents,
    Optional<Tensor> logVariance,
    OptionalLong seed,
    ServedBy servedBy,
    Timings timings) {
  static EncodeResult from(EncodeResponse reply) {
    return new EncodeResult(
        Tensor.from(reply.getLatents(), 2),
        reply.hasLogVariance()
            ? Optional.of(Tensor.from(reply.getLogVariance(), 2))
            : Optional.empty(),
        reply.hasSeed() ? OptionalLong.of(reply.getSeed()) : OptionalLong.empty(),
        ServedBy.from(reply.getServedBy()),
        Timings.from(reply.getTimings()));
  }
}
