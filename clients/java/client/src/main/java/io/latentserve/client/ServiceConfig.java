// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import java.util.List;
import java.util.Map;

/**
 * Service config with the retry policy, as JSON in maps, lists and doubles.
 *
 * <p>RESOURCE_EXHAUSTED means a full queue, for which the server sends a delay in {@code
 * grpc-retry-pushback-ms}, or a message that is too large, for which a retry fails again; the
 * number of attempts and the throttle bound these retries. CANCELLED comes from a server that
 * closed its port while the call arrived; a call cancelled by the client is not retried. Health
 * checks are not retried, because they report the current state.
 */
final class ServiceConfig {
  /** Maximum attempts of one call, including the first. */
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
        // Retries stop when half of the tokens are used, to relieve a failing server. A worker that
        // crashes fails all calls in flight at once; half of the tokens must cover these.
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
