// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import java.util.List;
import java.util.Map;

/**
 * The retry rules, as gRPC wants them: JSON as maps, lists and doubles.
 *
 * <p>RESOURCE_EXHAUSTED means a full queue, where the server says how long to wait by {@code
 * grpc-retry-pushback-ms}, but also a message that is too large, where trying again is useless:
 * hence few attempts and the throttle. CANCELLED comes from a server that was closing its port as
 * the call arrived; a call that its caller cancels is not tried again. Health checks are not
 * either: they report what is.
 */
final class ServiceConfig {
  /** Of one call, the first one included. */
  private static final double MAX_ATTEMPTS = 4;

  private ServiceConfig() {}

  static Map<String, ?> toMap() {
    return Map.of(
        "methodConfig",
        List.of(
            retried(
                "latentserve.v1.GenerativeService",
                List.of("UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED")),
            retried("latentserve.v1.ModelService", List.of("UNAVAILABLE", "CANCELLED"))),
        // No more retries once half of the tokens are gone: a server in trouble is left alone. A
        // worker that dies fails all calls in flight at once, and these must fit into the half.
        "retryThrottling",
        Map.of("maxTokens", 200.0, "tokenRatio", 0.1));
  }

  private static Map<String, ?> retried(String service, List<String> codes) {
    return Map.of(
        "name",
        List.of(Map.of("service", service)),
        "retryPolicy",
        Map.of(
            "maxAttempts",
            MAX_ATTEMPTS,
            "initialBackoff",
            "0.1s",
            "maxBackoff",
            "2s",
            "backoffMultiplier",
            2.0,
            "retryableStatusCodes",
            codes));
  }
}
