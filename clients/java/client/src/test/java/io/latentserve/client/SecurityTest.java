// Copyright 2026 The latentserve authors
// SPDX-License-Identifier: Apache-2.0

package io.latentserve.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.ChannelCredentials;
import io.grpc.CompositeChannelCredentials;
import io.grpc.InsecureChannelCredentials;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.TlsServerCredentials;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthGrpc.HealthImplBase;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class SecurityTest {
  private final AtomicReference<String> token = new AtomicReference<>();

  private final class Listening implements ServerInterceptor {
    @Override
    public <Q, P> ServerCall.Listener<Q> interceptCall(
        ServerCall<Q, P> call, Metadata headers, ServerCallHandler<Q, P> next) {
      token.set(headers.get(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER)));
      return next.startCall(call, headers);
    }
  }

  private static final class Health extends HealthImplBase {
    @Override
    public void check(HealthCheckRequest request, StreamObserver<HealthCheckResponse> replies) {
      replies.onNext(HealthCheckResponse.getDefaultInstance());
      replies.onCompleted();
    }
  }

  private static HealthStatus health(LatentserveClientBuilder builder) {
    try (LatentserveClient client = builder.build()) {
      return client.health("");
    }
  }

  @Test
  void customAuthorityClientCertificateAndToken(@TempDir Path folder)
      throws IOException, InterruptedException {
    Certificates trusted = new Certificates(folder, "trusted");
    Certificates strangers = new Certificates(folder, "strangers");
    trusted.sign("server", "san=ip:127.0.0.1");
    trusted.sign("client", "eku=clientAuth");
    try (TestServer server =
        TestServer.start(
            TlsServerCredentials.newBuilder()
                .keyManager(trusted.certificate("server").toFile(), trusted.key("server").toFile())
                .trustManager(trusted.authority().toFile())
                .clientAuth(TlsServerCredentials.ClientAuth.REQUIRE)
                .build(),
            List.of(new Listening()),
            new Health())) {
      assertEquals(
          HealthStatus.UNKNOWN,
          health(
              LatentserveClient.builder(server.address())
                  .tls(trusted.authority(), trusted.certificate("client"), trusted.key("client"))
                  .token("secret")));
      assertEquals("Bearer secret", token.get());

      LatentserveException failure =
          assertThrows(
              LatentserveException.class,
              () -> health(LatentserveClient.builder(server.address()).tls(trusted.authority())));
      assertEquals(Status.Code.UNAVAILABLE, failure.code());
      failure =
          assertThrows(
              LatentserveException.class,
              () ->
                  health(
                      LatentserveClient.builder(server.address())
                          .tls(
                              strangers.authority(),
                              trusted.certificate("client"),
                              trusted.key("client"))));
      assertEquals(Status.Code.UNAVAILABLE, failure.code());
      assertTrue(failure.getMessage().contains("certif"), failure.getMessage());
      failure =
          assertThrows(
              LatentserveException.class,
              () -> health(LatentserveClient.builder(server.address()).tls()));
      assertEquals(Status.Code.UNAVAILABLE, failure.code());
    }
  }

  @Test
  void aTokenRequiresTls() throws IOException {
    LatentserveClientBuilder careless = LatentserveClient.builder("127.0.0.1:1").token("secret");
    IllegalStateException refused = assertThrows(IllegalStateException.class, careless::build);
    assertTrue(refused.getMessage().contains("insecureToken"), refused.getMessage());
    try (TestServer server =
        TestServer.start(
            InsecureServerCredentials.create(), List.of(new Listening()), new Health())) {
      health(LatentserveClient.builder(server.address()).insecureToken("secret"));
      assertEquals("Bearer secret", token.get());
    }
  }

  @Test
  void aTokenIsNotSentOverAPlaintextChannel() throws IOException {
    ChannelCredentials plain =
        CompositeChannelCredentials.create(
            InsecureChannelCredentials.create(), new BearerToken("other", true));
    try (TestServer server =
        TestServer.start(
            InsecureServerCredentials.create(), List.of(new Listening()), new Health())) {
      LatentserveException failure =
          assertThrows(
              LatentserveException.class,
              () ->
                  health(
                      LatentserveClient.builder(server.address())
                          .credentials(plain)
                          .token("secret")));
      assertEquals(Status.Code.UNAUTHENTICATED, failure.code());
      assertEquals(null, token.get());
    }
  }

  @Test
  void invalidSettingsAreRefused(@TempDir Path folder) {
    Path missing = folder.resolve("missing.pem");
    LatentserveClientBuilder builder = LatentserveClient.builder("127.0.0.1:1");
    assertThrows(UncheckedIOException.class, () -> builder.tls(missing));
    assertThrows(UncheckedIOException.class, () -> builder.tls(missing, missing, missing));
    assertThrows(IllegalArgumentException.class, () -> builder.token(""));
    assertThrows(IllegalArgumentException.class, () -> builder.insecureToken(""));
    assertThrows(LatentserveException.class, () -> builder.maxMessageBytes(0));
    assertThrows(LatentserveException.class, () -> builder.model("mnist-vae:new"));
  }

  @Test
  void aDnsNameIsBalancedOverItsServers() throws IOException {
    try (TestServer server = TestServer.start(new Health())) {
      String port = server.address().substring(server.address().indexOf(':'));
      assertEquals(
          HealthStatus.UNKNOWN, health(LatentserveClient.builder("dns:///localhost" + port)));
    }
  }
}
