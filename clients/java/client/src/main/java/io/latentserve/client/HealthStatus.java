// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.grpc.health.v1.HealthCheckResponse;

/** The health of the server, a service or a model. */
public enum HealthStatus {
  /** It says nothing that this client knows. */
  UNKNOWN,
  /** Calls are answered. */
  SERVING,
  /** It is starting, loading or draining. */
  NOT_SERVING,
  /** There is no such service; only from {@link LatentserveClient#watchHealth}. */
  SERVICE_UNKNOWN;

  static HealthStatus from(HealthCheckResponse reply) {
    return switch (reply.getStatus()) {
      case SERVING -> SERVING;
      case NOT_SERVING -> NOT_SERVING;
      case SERVICE_UNKNOWN -> SERVICE_UNKNOWN;
      case UNKNOWN, UNRECOGNIZED -> UNKNOWN;
    };
  }
}
