// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.latentserve.v1.EncodeResponse;
import java.util.Optional;
import java.util.OptionalLong;

/**
 * Latents of images, in their order.
 *
 * @param latents FLOAT32 [n, dim]: the mean of q(z|x), or a draw where there was a seed
 * @param logVariance FLOAT32 [n, dim]: ln of the variance, where the model has one
 * @param seed of the draw
 * @param servedBy which model answered
 * @param timings where the time went
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
