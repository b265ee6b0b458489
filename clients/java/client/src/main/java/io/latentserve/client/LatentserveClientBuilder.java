// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** Builder of a {@link LatentserveClient}. */
public final class LatentserveClientBuilder {
  /** Default maximum size of a request or reply in bytes. */
  public static final int DEFAULT_MAX_MESSAGE_BYTES = 64 << 20;

  /** Default timeout of a call. */
  public static final Duration DEFAULT_TIMEOUT = Duration.ofSeconds(10);

  private final String address;
  private String model = "";
  private Duration timeout = DEFAULT_TIMEOUT;
  private boolean waitForReady;
  private int maxMessageBytes = DEFAULT_MAX_MESSAGE_BYTES;
  private ChannelCredentials credentials = InsecureChannelCredentials.create();
  private String token;
  private boolean tokenInPlainText;
  private Consumer<ManagedChannelBuilder<?>> configuration = channel -> {};

  LatentserveClientBuilder(String address) {
    this.address = Objects.requireNonNull(address, "address");
  }

  /**
   * Sets the model of calls that name none: {@code NAME} or {@code NAME:VERSION}. If unset, they
   * use the server's default model.
   */
  public LatentserveClientBuilder model(String model) {
    LatentserveClient.ref(model); // fail here, not in the first call
    this.model = model;
    return this;
  }

  /** Sets the timeout of calls, including retries, and of whole streams. Default: 10 s. */
  public LatentserveClientBuilder timeout(Duration timeout) {
    this.timeout = LatentserveClient.positive(timeout);
    return this;
  }

  /** Makes calls wait until their deadline for a server that cannot be reached. */
  public LatentserveClientBuilder waitForReady() {
    this.waitForReady = true;
    return this;
  }

  /** Sets the maximum size of a request or reply in bytes. Default: 64 MiB. */
  public LatentserveClientBuilder maxMessageBytes(int bytes) {
    if (bytes < 1) {
      throw LatentserveException.invalid("max_message_bytes", bytes + "; expected at least 1");
    }
    this.maxMessageBytes = bytes;
    return this;
  }

  /** Encrypts the connection and trusts the certificate authorities of the system. */
  public LatentserveClientBuilder tls() {
    return credentials(TlsChannelCredentials.create());
  }

  /**
   * Encrypts the connection and trusts the certificate authority of a PEM file.
   *
   * @throws UncheckedIOException if a file cannot be read
   */
  public LatentserveClientBuilder tls(Path authority) {
    try {
      return credentials(
          TlsChannelCredentials.newBuilder().trustManager(authority.toFile()).build());
    } catch (IOException unreadable) {
      throw new UncheckedIOException(unreadable);
    }
  }

  /**
   * As above, with a client certificate and its key in PEM files; the key is PKCS #8.
   *
   * @throws UncheckedIOException if a file cannot be read
   */
  public LatentserveClientBuilder tls(Path authority, Path certificate, Path key) {
    try {
      return credentials(
          TlsChannelCredentials.newBuilder()
              .trustManager(authority.toFile())
              .keyManager(certificate.toFile(), key.toFile())
              .build());
    } catch (IOException unreadable) {
      throw new UncheckedIOException(unreadable);
    }
  }

  /** Sets the channel credentials, for settings that {@code tls} does not cover. */
  public LatentserveClientBuilder credentials(ChannelCredentials credentials) {
    this.credentials = Objects.requireNonNull(credentials, "credentials");
    return this;
  }

  /**
   * Sends a bearer token with each call. Requires TLS, because a token on a plaintext connection
   * can be intercepted.
   */
  public LatentserveClientBuilder token(String token) {
    this.token = notEmpty(token);
    this.tokenInPlainText = false;
    return this;
  }

  /**
   * Sends a bearer token with or without TLS, for a connection that something else protects, such
   * as a sidecar on the same machine.
   */
  public LatentserveClientBuilder insecureToken(String token) {
    this.token = notEmpty(token);
    this.tokenInPlainText = true;
    return this;
  }

  /**
   * Changes the channel after all other settings: interceptors, an executor, {@code
   * disableRetry()}, {@code overrideAuthority(...)}.
   */
  public LatentserveClientBuilder configureChannel(
      Consumer<ManagedChannelBuilder<?>> configuration) {
    this.configuration = this.configuration.andThen(configuration);
    return this;
  }

  /**
   * Returns the client, which connects on its first call.
   *
   * @throws IllegalStateException for a token without TLS
   */
  public LatentserveClient build() {
    if (token != null && !tokenInPlainText && credentials instanceof InsecureChannelCredentials) {
      throw new IllegalStateException(
          "a token on a plaintext connection can be intercepted; use tls(...), or"
              + " insecureToken(...) if something else protects the connection");
    }
    return new LatentserveClient(
        channel(),
        new LatentserveClient.Settings(
            model,
            timeout,
            waitForReady,
            maxMessageBytes,
            token == null ? null : new BearerToken(token, tokenInPlainText)));
  }

  /** Message sizes, keepalive, retries and load balancing, as in all latentserve clients. */
  private ManagedChannel channel() {
    ManagedChannelBuilder<?> builder =
        Grpc.newChannelBuilder(address, credentials)
            // The default of gRPC is 4 MiB: about 1,300 MNIST images.
            .maxInboundMessageSize(maxMessageBytes)
            // By default, it does not retry requests above 1 MiB, or with 16 MiB in flight.
            .perRpcBufferLimit(2L * maxMessageBytes)
            .retryBufferSize(16L * maxMessageBytes)
            // Detect a dead peer within 40 s while a call is open; no pings on idle channels.
            .keepAliveTime(30, TimeUnit.SECONDS)
            .keepAliveTimeout(10, TimeUnit.SECONDS)
            .keepAliveWithoutCalls(false)
            .disableServiceConfigLookUp()
            .defaultServiceConfig(ServiceConfig.toMap());
    if (address.startsWith("dns:///")) {
      // One name may resolve to several servers: use all of them.
      builder.defaultLoadBalancingPolicy("round_robin");
    }
    configuration.accept(builder);
    return builder.build();
  }

  private static String notEmpty(String token) {
    if (token.isEmpty()) {
      throw new IllegalArgumentException("the token is empty");
    }
    return token;
  }
}
