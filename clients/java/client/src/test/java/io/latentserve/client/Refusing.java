// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import java.util.concurrent.atomic.AtomicInteger;

/** Interceptor that fails the first attempts with a code and counts attempts. */
final class Refusing implements ServerInterceptor {
  private static final Metadata.Key<String> PUSHBACK =
      Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);

  private final Status.Code code;
  private final int times;
  private final String pushbackMs;
  private final AtomicInteger attempts = new AtomicInteger();

  Refusing(Status.Code code, int times, String pushbackMs) {
    this.code = code;
    this.times = times;
    this.pushbackMs = pushbackMs;
  }

  int attempts() {
    return attempts.get();
  }

  @Override
  public <Q, P> ServerCall.Listener<Q> interceptCall(
      ServerCall<Q, P> call, Metadata headers, ServerCallHandler<Q, P> next) {
    if (attempts.incrementAndGet() > times) {
      return next.startCall(call, headers);
    }
    Metadata trailers = new Metadata();
    // grpc-java retries after any status with this trailer, whatever the code.
    if (!pushbackMs.isEmpty()) {
      trailers.put(PUSHBACK, pushbackMs);
    }
    call.close(code.toStatus().withDescription("refused"), trailers);
    return new ServerCall.Listener<>() {};
  }
}
