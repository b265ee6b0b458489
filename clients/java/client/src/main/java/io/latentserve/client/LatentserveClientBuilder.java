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

/** Sets up a {@link LatentserveClient}. */
public final class LatentserveClientBuilder {
  /** Bounds one request and one reply, unless set. */
  public static final int DEFAULT_MAX_MESSAGE_BYTES = 64 << 20;

  /** What a call may take, unless set. */
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
   * The model of calls that name none: {@code NAME} or {@code NAME:VERSION}. Without it they go to
   * the server's default model.
   */
  public LatentserveClientBuilder model(String model) {
    LatentserveClient.ref(model); // a wrong one fails here rather than in the first call
    this.model = model;
    return this;
  }

  /** What a call may take, attempts and waiting included; of a stream, the whole of it. 10 s. */
  public LatentserveClientBuilder timeout(Duration timeout) {
    this.timeout = LatentserveClient.positive(timeout);
    return this;
  }

  /** Makes calls wait, within their timeout, for a server that cannot be reached yet. */
  public LatentserveClientBuilder waitForReady() {
    this.waitForReady = true;
    return this;
  }

  /** Bounds one request and one reply; 64 MiB unless set. */
  public LatentserveClientBuilder maxMessageBytes(int bytes) {
    if (bytes < 1) {
      throw LatentserveException.invalid("max_message_bytes", bytes + "; expected at least 1");
    }
    this.maxMessageBytes = bytes;
    return this;
  }

  /** Encrypts the connection, and trusts the authorities that this machine trusts. */
  public LatentserveClientBuilder tls() {
    return credentials(TlsChannelCredentials.create());
  }

  /**
   * Encrypts the connection, and trusts the authority of a PEM file.
   *
   * @throws UncheckedIOException for a file that cannot be read
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
   * The same, with this client's own certificate and its key, in PEM files, the key as PKCS #8.
   *
   * @throws UncheckedIOException for a file that cannot be read
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

  /** The credentials of the connection, for what {@code tls} does not cover. */
  public LatentserveClientBuilder credentials(ChannelCredentials credentials) {
    this.credentials = Objects.requireNonNull(credentials, "credentials");
    return this;
  }

  /**
   * Sends a bearer token with each call. Needs TLS: in plain text, whoever is on the way reads it.
   */
  public LatentserveClientBuilder token(String token) {
    this.token = notEmpty(token);
    this.tokenInPlainText = false;
    return this;
  }

  /**
   * Sends a bearer token also without TLS: for a connection that something else protects, such as a
   * sidecar on the same machine.
   */
  public LatentserveClientBuilder insecureToken(String token) {
    this.token = notEmpty(token);
    this.tokenInPlainText = true;
    return this;
  }

  /**
   * Changes the channel behind all that is set here: interceptors, an executor, {@code
   * disableRetry()}, {@code overrideAuthority(...)}.
   */
  public LatentserveClientBuilder configureChannel(
      Consumer<ManagedChannelBuilder<?>> configuration) {
    this.configuration = this.configuration.andThen(configuration);
    return this;
  }

  /**
   * Returns the client, which connects in its first call.
   *
   * @throws IllegalStateException for a token without TLS
   */
  public LatentserveClient build() {
    if (token != null && !tokenInPlainText && credentials instanceof InsecureChannelCredentials) {
      throw new IllegalStateException(
          "a token in plain text can be read on the way; use tls(...), or insecureToken(...) where"
              + " something else protects the connection");
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

  /** Sizes, keepalive, retries, load balancing: those of every latentserve client. */
  private ManagedChannel channel() {
    ManagedChannelBuilder<?> builder =
        Grpc.newChannelBuilder(address, credentials)
            // gRPC would refuse replies above 4 MiB: some 1,300 MNIST images.
            .maxInboundMessageSize(maxMessageBytes)
            // It would not try a request above 1 MiB again, nor any once 16 MiB are in flight.
            .perRpcBufferLimit(2L * maxMessageBytes)
            .retryBufferSize(16L * maxMessageBytes)
            // Notice a dead peer within 40 s while a call is open; idle channels stay silent.
            .keepAliveTime(30, TimeUnit.SECONDS)
            .keepAliveTimeout(10, TimeUnit.SECONDS)
            .keepAliveWithoutCalls(false)
            .disableServiceConfigLookUp()
            .defaultServiceConfig(ServiceConfig.toMap());
    if (address.startsWith("dns:///")) {
      // One name for several servers: use all of them.
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
