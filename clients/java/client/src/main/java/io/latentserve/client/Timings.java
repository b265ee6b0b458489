// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import java.time.Duration;

/**
 * Durations of one call on the server.
 *
 * @param queue until the first batch with rows of this call started
 * @param compute in ONNX Runtime
 * @param batchRows rows of the largest batch of this call, including rows of other calls
 */
public record Timings(Duration queue, Duration compute, int batchRows) {
  static Timings from(io.latentserve.v1.Timings message) {
    return new Timings(
        Duration.ofNanos(message.getQueueNs()),
        Duration.ofNanos(message.getComputeNs()),
        message.getBatchRows());
  }
}
