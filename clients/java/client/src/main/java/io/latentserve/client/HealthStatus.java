// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.grpc.health.v1.HealthCheckResponse;

/** Health status of the server, a service or a model. */
public enum HealthStatus {
  /** A status that this client does not know. */
  UNKNOWN,
  /** It accepts calls. */
  SERVING,
  /** It is starting, loading or draining. */
  NOT_SERVING,
  /** It is unknown; only {@link LatentserveClient#watchHealth} returns this status. */
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
